"""Rows of the request log: made up, and read back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.request_log import Origin, Row
from tests.support.waiting import wait_until

OLD_TABLE = """
    CREATE TABLE inferences (
        id {id} PRIMARY KEY, time FLOAT NOT NULL, request_id VARCHAR(128) NOT NULL, pair BIGINT, side SMALLINT NOT NULL,
        called SMALLINT NOT NULL, model VARCHAR(64) NOT NULL, version INTEGER NOT NULL, runtime VARCHAR(16) NOT NULL,
        role VARCHAR(16) NOT NULL, policy VARCHAR(16) NOT NULL, cold BOOLEAN NOT NULL, outcome VARCHAR(32) NOT NULL,
        images INTEGER NOT NULL, batch INTEGER, receive_s FLOAT, decode_s FLOAT, preprocess_s FLOAT, queue_s FLOAT,
        rpc_s FLOAT, postprocess_s FLOAT, total_s FLOAT NOT NULL, compared INTEGER, agreeing INTEGER,
        score_difference FLOAT
    )"""
"""The log's table before it had the workers' own times. `id`: the type of that column."""
OLD_ROW = """
    INSERT INTO inferences (time, request_id, side, called, model, version, runtime, role, policy, cold, outcome,
                            images, batch, rpc_s, total_s)
    VALUES (1000.0, 'old', 0, 0, 'digits', 1, 'torch', 'primary', 'fixed', {no}, 'ok', 1, 8, 0.25, 0.25)"""
"""A row of it. `no`: how the database writes that."""


def row(number: int = 0, *, time: float = 1000.0) -> Row:
    origin = Origin(f"request-{number}", time, "fixed")
    return Row(origin, "digits", 1, "torch", "primary", cold=False, outcome="ok", images=1, seconds={"rpc": 0.004})


def read(database: Path) -> list[dict[str, Any]]:
    """Every row, in the order in which they were written; none while there is no log yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'inferences'").fetchone():
            return []
        return [dict(each) for each in connection.execute("SELECT * FROM inferences ORDER BY id")]


def wait_for(database: Path, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The rows, once they are `enough`."""
    wait_until(lambda: enough(read(database)), lambda: read(database), patience_s=30, pause_s=0.05)
    return read(database)
