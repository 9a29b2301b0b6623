"""Rows of the request log, made for tests: latencies whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import URL, Connection, create_engine, insert

from evidence.document import Target
from gateway.database import METADATA
from gateway.request_log import TABLE

Row = dict[str, Any]
TORCH, TF = Target(runtime="torch", version=1), Target(runtime="tf", version=1)


def row(target: Target = TORCH, rpc_s: float | None = 0.005, **columns: Any) -> Row:
    """An answered request for `digits` with a fixed target."""
    default: Row = {
        "time": 1000.0,
        "request_id": "r",
        "pair": None,
        "side": 0,
        "called": 0,
        "model": "digits",
        "version": target.version,
        "runtime": target.runtime,
        "role": "primary",
        "policy": "fixed",
        "cold": False,
        "outcome": "ok",
        "images": 1,
        "batch": None,
        "receive_s": 0.0005,
        "decode_s": 0.001,
        "preprocess_s": 0.0003,
        "queue_s": 0.0,
        "rpc_s": rpc_s,
        "postprocess_s": 0.0,
        "total_s": 0.0018 + (rpc_s or 0.0),
        "compared": None,
        "agreeing": None,
        "score_difference": None,
        "worker_queue_s": None,
        "worker_inference_s": None,
    }
    return default | columns


def pair(
    number: int, time: float, a_s: float | None, b_s: float | None, *, a: Target = TORCH, b: Target = TF, **both: Any
) -> tuple[Row, Row]:
    """Two shadows of one request, in an order by chance, which agree."""
    common = {"pair": number, "time": time, "policy": "shadow", "role": "shadow"} | both
    first = number >> 1 & 1
    return (
        row(a, a_s, **{"called": first} | common),
        row(b, b_s, side=1, called=1 - first, compared=1, agreeing=1, score_difference=1e-6)
        | {name: value for name, value in common.items() if value is not None},
    )


def pairs(
    a_s: NDArray[np.float64], b_s: NDArray[np.float64], *, start: float = 1000.0, every_s: float = 0.1, **both: Any
) -> list[Row]:
    """One after the other, with numbers by chance."""
    numbers = np.random.default_rng(7).integers(2**62, size=len(a_s))
    made = zip(numbers.tolist(), a_s.tolist(), b_s.tolist(), strict=True)
    return [each for i, (n, x, y) in enumerate(made) for each in pair(n, start + i * every_s, x, y, **both)]


def write(connection: Connection, rows: Iterable[Row]) -> None:
    METADATA.create_all(connection)
    if made := list(rows):
        connection.execute(insert(TABLE), made)


def write_log(file: Path, rows: Sequence[Row]) -> str:
    """Make a database; its URL."""
    engine = create_engine(URL.create("sqlite", database=str(file)))
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        write(connection, rows)
    engine.dispose()
    return f"sqlite:///{file}"
