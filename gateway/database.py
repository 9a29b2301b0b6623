"""The database: what outlives a process, and is shared by several. Its calls block: they run in a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, MetaData, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.errors import DatabaseUnavailable

METADATA = MetaData()
"""Of every table; each is made where it is missing."""

_BUSY_S = 5
"""Longest wait for a lock that another process holds."""
_PATIENCE_S = 10

T = TypeVar("T")


class Database:
    """Opened by its first use: without one, or with a broken one, everything else runs on."""

    def __init__(self, url: str) -> None:
        """`url`: SQLAlchemy's, `sqlite:///path`."""
        self._engine = create_engine(url, connect_args={"timeout": _BUSY_S})
        event.listen(self._engine, "connect", _use_wal)
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
            with self._engine.begin() as connection:
                if not self._made:
                    METADATA.create_all(connection)
                    self._made = True
                return work(connection)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            self._made = False  # it may be another file by now
            self._engine.dispose()
            raise DatabaseUnavailable(
                "The database cannot be used now: the gateway's log says why. Try again later."
            ) from error


def _use_wal(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # Readers and a writer do not wait for each other, and a process that is killed leaves the file sound.
    connection.execute("PRAGMA journal_mode=WAL")
