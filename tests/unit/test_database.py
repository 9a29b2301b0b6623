"""A database that an older version of Tandem made is brought up to date, and loses nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, inspect

from gateway.database import METADATA, make_tables, open_engine
from gateway.request_log import TABLE
from tests.support.rows import OLD_ROW, OLD_TABLE, read


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file with the log's table as it was, and a row in it."""
    path = tmp_path / "tandem.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(OLD_TABLE.format(id="INTEGER"))
        connection.execute(OLD_ROW.format(no="0"))
        connection.commit()
    return path


@pytest.fixture
def engine(old: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{old}")
    yield engine
    engine.dispose()


def test_an_older_table_gets_the_columns_that_it_lacks_and_keeps_its_rows(engine: Engine, old: Path) -> None:
    make_tables(engine)
    (row,) = read(old)
    assert row.keys() == set(TABLE.c.keys())
    assert (row["request_id"], row["batch"], row["rpc_s"]) == ("old", 8, 0.25)
    assert (row["worker_queue_s"], row["worker_inference_s"]) == (None, None)
    assert set(inspect(engine).get_table_names()) == set(METADATA.tables)


def test_a_table_that_is_up_to_date_is_not_changed_again(engine: Engine) -> None:
    make_tables(engine)
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: said.append(arguments[2].split()[0]))
    make_tables(engine)
    assert said
    assert not {"ALTER", "CREATE", "BEGIN"} & set(said)


def test_gateways_that_start_at_once_add_each_column_once(old: Path) -> None:
    engines = [open_engine(f"sqlite:///{old}") for _ in range(4)]
    together = threading.Barrier(len(engines))

    def make(engine: Engine) -> None:
        together.wait()
        make_tables(engine)

    with ThreadPoolExecutor(len(engines)) as threads:
        for made in [threads.submit(make, engine) for engine in engines]:
            made.result()
    for engine in engines:
        engine.dispose()
    assert read(old)[0].keys() == set(TABLE.c.keys())
