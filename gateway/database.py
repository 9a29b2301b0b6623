"""The database: what outlives a process, and is shared by several. Its calls block: they run in a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Engine, MetaData, Table, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateColumn

from gateway.errors import DatabaseUnavailable
from gateway.settings import InvalidSettings

METADATA = MetaData()
"""Of every table. Each is made where it is missing, and so is a column that an older version of Tandem did not have: it
must be nullable. Nothing else of a table ever changes (docs/adr/0032-columns-are-added.md)."""
FAULTS = (SQLAlchemyError, sqlite3.Error, OSError)
"""What a database that is away or broken raises."""

_BUSY_S = 5.0
"""Longest wait for a lock that another process holds."""
_PATIENCE_S = 10
_POSTGRESQL: dict[str, object] = {
    "connect_timeout": 5,
    # So that a server that has gone without a word is noticed.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_MAKING = 0x74616E64656D
"""PostgreSQL's advisory lock of whoever makes the tables: the bytes of `tandem`."""

T = TypeVar("T")


class Database:
    """Opened by its first use: without one, or with a broken one, everything else runs on."""

    def __init__(self, url: str) -> None:
        """`url`: SQLAlchemy's, `sqlite:///path` or `postgresql+psycopg://…`. Raises InvalidSettings: no driver."""
        self._engine = open_engine(url)
        self._thread = ThreadPoolExecutor(1, "database")
        self._made = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction, and commit it. Raises DatabaseUnavailable."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)
        except TimeoutError:
            raise DatabaseUnavailable(f"The database did not answer in {_PATIENCE_S} s. Try again later.") from None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        try:
            if not self._made:
                make_tables(self._engine)
                self._made = True
            with self._engine.begin() as connection:
                return work(connection)
        except FAULTS as error:
            self._made = False  # it may be another file by now
            self._engine.dispose()
            raise DatabaseUnavailable(
                "The database cannot be used now: the gateway's log says why. Try again later."
            ) from error


def open_engine(url: str, *, busy_s: float = _BUSY_S, pragmas: tuple[str, ...] = ()) -> Engine:
    """Connects at its first use. `busy_s`: longest wait for a lock; `pragmas`: said to each connection to SQLite.

    Raises InvalidSettings where the driver is missing.
    """
    if not url.startswith("sqlite"):
        locks = {"options": f"-c lock_timeout={busy_s * 1000:.0f}"}
        try:
            return create_engine(url, connect_args=_POSTGRESQL | locks)
        except ModuleNotFoundError as error:
            raise InvalidSettings(
                f"TANDEM_DATABASE_URL names PostgreSQL, and its driver is missing ({error}). "
                "Install it: pip install 'tandem-serving[postgres]'."
            ) from error

    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        _keep_ahead_log(connection, busy_s)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    engine = create_engine(url, connect_args={"timeout": busy_s})
    event.listen(engine, "connect", prepare)
    return engine


def _keep_ahead_log(connection: sqlite3.Connection, busy_s: float) -> None:
    """Readers and a writer do not wait for each other, and a process that is killed leaves the file sound."""
    until_s = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            # While others change the mode of the same file, SQLite says so at once: it does not wait its time-out.
            if time.monotonic() >= until_s:
                raise
            time.sleep(0.005)


def make_tables(engine: Engine) -> None:
    """Make the tables and the columns that are missing. No matter if others do the same at the same time."""
    with engine.begin() as connection:
        if not _missing(connection):
            return  # without a lock: who only reads need not wait for a writer
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(select(func.pg_advisory_xact_lock(_MAKING)))
        METADATA.create_all(connection)
        for column in _missing(connection):
            described = CreateColumn(column).compile(dialect=engine.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {described}")


def _missing(connection: Connection) -> list[Column[Any]]:
    """The columns that the database lacks, those of tables that it lacks among them."""
    found = inspect(connection).get_multi_columns(filter_names=list(METADATA.tables))
    there = {name: {column["name"] for column in columns} for (_, name), columns in found.items()}
    return [
        column
        for name, table in METADATA.tables.items()
        for column in table.columns
        if column.name not in there.get(name, ())
    ]


def lock(connection: Connection, table: Table) -> None:
    """Have others that change `table` wait for the end of this transaction; on SQLite they do anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE"))
