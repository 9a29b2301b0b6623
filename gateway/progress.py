"""How far each canary has come, and the journal of what was decided about it, in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from gateway.database import METADATA
from gateway.routing import Progress

Action = Literal["start", "promote", "roll_back"]
KEPT_EVENTS = 100
"""Of each model; older ones are forgotten."""

TABLE = Table(
    "canaries",
    METADATA,
    Column("model", String(200), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("since", Float(53), nullable=False),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False),
)
"""One row for each model whose policy is a canary. `revision`: the policy's; of another one it says nothing."""

JOURNAL = Table(
    "canary_journal",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("model", String(200), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("action", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Index("canary_journal_model", "model", "id"),
)
"""`time`: Unix time. `step`: the one from then on; of a roll-back the one that ended."""


@dataclass(frozen=True)
class Event:
    time: float
    """Unix time."""
    revision: int
    step: int
    action: Action
    why: str


def begin(model: str, revision: int, now: float, why: str, connection: Connection) -> None:
    """A canary with this revision is in force now, at its first step."""
    end(model, connection)
    connection.execute(
        insert(TABLE).values(model=model, revision=revision, step=0, since=now, state="running", why=why)
    )
    _write(model, Event(now, revision, 0, "start", why), connection)


def end(model: str, connection: Connection) -> None:
    """The policy in force is none, or another one."""
    connection.execute(delete(TABLE).where(TABLE.c.model == model))


def move(
    model: str, revision: int, before: Progress, after: Progress, action: Action | None, connection: Connection
) -> bool:
    """From `before` to `after`, and into the journal if it is an action. False, and nothing, where the canary is
    another by now, or has been moved already: of two that decide at once, one moves it."""
    still = (
        (TABLE.c.model == model)
        & (TABLE.c.revision == revision)
        & (TABLE.c.step == before.step)
        & (TABLE.c.state == before.state)
    )
    values = {"step": after.step, "since": after.since, "state": after.state, "why": after.why}
    if not connection.execute(update(TABLE).where(still).values(values)).rowcount:
        return False
    if action is not None:
        _write(model, Event(after.since, revision, after.step, action, after.why), connection)
    return True


def read(connection: Connection) -> Mapping[str, tuple[int, Progress]]:
    """Of every canary, by model: the policy's revision, and its progress."""
    columns = TABLE.c
    rows = connection.execute(
        select(columns.model, columns.revision, columns.step, columns.since, columns.state, columns.why)
    )
    return {model: (revision, Progress(step, since, state, why)) for model, revision, step, since, state, why in rows}


def events(model: str, most: int, connection: Connection) -> Sequence[Event]:
    """The newest first."""
    columns = JOURNAL.c
    rows = connection.execute(
        select(columns.time, columns.revision, columns.step, columns.action, columns.why)
        .where(columns.model == model)
        .order_by(columns.id.desc())
        .limit(most)
    )
    return [Event(*row) for row in rows]


def _write(model: str, event: Event, connection: Connection) -> None:
    connection.execute(insert(JOURNAL).values(model=model, **vars(event)))
    oldest = select(JOURNAL.c.id).where(JOURNAL.c.model == model).order_by(JOURNAL.c.id.desc()).offset(KEPT_EVENTS - 1)
    connection.execute(
        delete(JOURNAL).where(JOURNAL.c.model == model, JOURNAL.c.id < oldest.limit(1).scalar_subquery())
    )
