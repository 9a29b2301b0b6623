"""The rows of the request log that a comparison looks at, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from evidence.document import Target
from gateway.request_log import DROPPED, OVERTAKEN, TABLE

MOST_ROWS: Final = 400_000
"""The newest so many are counted: 200,000 pairs."""
STAGES: Final = ("receive", "decode", "preprocess", "queue", "rpc", "postprocess")
OUTCOMES: Final = (
    "ok",
    "deadline_exceeded",
    DROPPED,
    "cancelled",
    OVERTAKEN,
    "overloaded",
    "runtime_unavailable",
    "runtime_failed",
    "internal_error",
    "other",
)
"""By code in the column `outcome`."""
WORKER_PARTS: Final = ("queue", "inference")
"""Of rpc, as far as the worker says so."""
NO_PAIR: Final = -1
_CHUNK: Final = 20_000


class Role(IntEnum):
    PRIMARY = 0
    SHADOW = 1
    COMPARE = 2
    OTHER = 3
    """Failover, hedge: asked because another one failed or was late, and so about no sample of the requests."""


class Choice(IntEnum):
    """How the target was chosen."""

    OTHERWISE = 0
    CHANCE = 1
    SPEED = 2


@dataclass(frozen=True)
class Rows:
    since: float
    """From when on there are rows here: later than asked for where the log holds too much, or not enough."""
    moved: str | None
    """Why it is later."""
    columns: NDArray[np.void]
    """In order of time. A stage that was not reached and a time that the worker does not say are NaN, a missing pair is
    NO_PAIR, the others are as in the log."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self.columns[name]
        return column

    def __len__(self) -> int:
        return len(self.columns)


def read(connection: Connection, model: str, a: Target, b: Target, *, since: float, until: float) -> Rows:
    """Every row about the model from `since` until before `until`; `target` is 0 for a, 1 for b, 2 for another one."""
    asked = _between(model, since, until)
    start, moved = _start(connection, asked, since)
    statement = (
        select(*(expression.label(name) for name, _, expression in _columns(a, b)))
        .where(_between(model, start, until))
        .order_by(TABLE.c.time, TABLE.c.id)
    )
    form = np.dtype([(name, kind) for name, kind, _ in _columns(a, b)])
    result = connection.execution_options(yield_per=_CHUNK).execute(statement)
    chunks = [np.array([tuple(row) for row in chunk], dtype=form) for chunk in result.partitions()]
    return Rows(start, moved, np.concatenate([np.empty(0, form), *chunks]))


def _between(model: str, since: float, until: float) -> ColumnElement[bool]:
    return and_(TABLE.c.model == model, TABLE.c.time >= since, TABLE.c.time < until)


def _start(connection: Connection, asked: ColumnElement[bool], since: float) -> tuple[float, str | None]:
    """From when on to count rows, and why not from `since` on.

    A bound for any number of looks holds while the start stands still. Where rows have to be left out at the front, or
    the log loses them there, the start is a row whose number is a multiple of a power of two: it moves once in a
    while, by a leap, and not with each look.
    """
    rows, first, last = connection.execute(
        select(func.count(), func.min(TABLE.c.id), func.max(TABLE.c.id)).where(asked)
    ).one()
    if not rows:
        return since, None
    oldest, oldest_time = connection.execute(select(TABLE.c.id, TABLE.c.time).order_by(TABLE.c.id).limit(1)).one()
    too_many = rows > MOST_ROWS
    trimmed = oldest > 1 and oldest_time >= since
    if not too_many and not trimmed:
        return since, None
    if too_many:
        first = connection.scalar(
            select(TABLE.c.id).where(asked).order_by(TABLE.c.time.desc()).offset(MOST_ROWS - 1).limit(1)
        )
    leap = 2 ** (max(4, (last - first)).bit_length() - 3)
    start = connection.scalar(
        select(TABLE.c.time).where(asked, TABLE.c.id >= -(-first // leap) * leap).order_by(TABLE.c.id).limit(1)
    )
    why = (
        f"only the newest requests are counted, at most {MOST_ROWS:,}"
        if too_many
        else "older requests are not in the log any more"
    )
    return since if start is None else max(since, start), f"Counting starts later than asked for: {why}."


def _columns(a: Target, b: Target) -> list[tuple[str, str, ColumnElement[Any]]]:
    c = TABLE.c
    is_a, is_b = (and_(c.runtime == each.runtime, c.version == each.version) for each in (a, b))
    by_speed = (c.policy == "fastest") | c.role.in_(("failover", "hedge"))
    return [
        ("id", "i8", c.id),
        ("time", "f8", c.time),
        ("pair", "i8", func.coalesce(c.pair, NO_PAIR)),
        ("side", "i1", c.side),
        ("called", "i1", c.called),
        ("target", "i1", case((is_a, 0), (is_b, 1), else_=2)),
        ("role", "i1", case({"primary": 0, "shadow": 1, "compare": 2}, value=c.role, else_=int(Role.OTHER))),
        (
            "choice",
            "i1",
            case(
                (by_speed, int(Choice.SPEED)),
                (c.policy.in_(("weighted", "canary")), int(Choice.CHANCE)),
                else_=int(Choice.OTHERWISE),
            ),
        ),
        ("cold", "?", c.cold),
        ("outcome", "i1", case({name: i for i, name in enumerate(OUTCOMES)}, value=c.outcome, else_=len(OUTCOMES) - 1)),
        ("images", "i4", c.images),
        ("compared", "i4", func.coalesce(c.compared, 0)),
        ("agreeing", "i4", func.coalesce(c.agreeing, 0)),
        ("score_difference", "f8", c.score_difference),
        *((stage, "f8", c[f"{stage}_s"]) for stage in STAGES),
        ("total", "f8", c.total_s),
        *((f"worker_{part}", "f8", c[f"worker_{part}_s"]) for part in WORKER_PARTS),
    ]
