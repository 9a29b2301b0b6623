"""The policy of each model: kept in the database, answered from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, Connection, DateTime, Integer, Row, String, Table, Text, func, insert, select, update

from gateway import progress
from gateway.database import METADATA, Database, lock
from gateway.errors import DatabaseUnavailable
from gateway.progress import Action, Event
from gateway.routing import Canary, Policy, Progress

_log = structlog.get_logger(__name__)
_POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)
_POLL_S = 0.5

TABLE = Table(
    "policies",
    METADATA,
    Column("model", String(200), primary_key=True),
    Column("policy", Text, nullable=False),
    Column("revision", Integer, nullable=False, unique=True),
    Column("updated", DateTime, nullable=False),
)
"""`revision` counts the changes of all models together, so that its maximum tells whether there is a new one."""

_Row = Row[str, str, int, datetime]
_Canaries = Mapping[str, tuple[int, Progress]]


@dataclass(frozen=True)
class Kept:
    policy: Policy
    revision: int
    """Greater with each change; 0: never set."""
    updated: datetime | None
    progress: Progress | None = None
    """Of a canary."""


class Policies:
    """What was read last stays in force while the database is away. A policy is replaced, never removed."""

    def __init__(self, database: Database, default: Policy) -> None:
        """`default`: of models for which none was set."""
        self._database = database
        self._default = Kept(default, 0, None)
        self._kept: dict[str, Kept] = {}
        self._revision = 0
        self._away = False

    def of(self, model: str) -> Kept:
        return self._kept.get(model, self._default)

    def canaries(self) -> list[tuple[str, Canary, Kept]]:
        """Those in force, with their models."""
        return [(model, kept.policy, kept) for model, kept in self._kept.items() if isinstance(kept.policy, Canary)]

    async def set(self, model: str, policy: Policy) -> Kept:
        """Put `policy` in force, here at once and in other processes within a second: a canary at its first step.

        Raises DatabaseUnavailable."""
        self._take(*await self._database.run(partial(_write, model, policy)))
        return self._kept[model]

    async def move(self, model: str, kept: Kept, after: Progress, action: Action | None) -> bool:
        """Bring a canary to `after`, as `set` does. False, and nothing, where it is not as in `kept` any more.

        Raises DatabaseUnavailable."""
        if kept.progress is None:
            return False
        work = partial(progress.move, model, kept.revision, kept.progress, after, action)
        if moved := await self._database.run(work):
            self._follow({model: (kept.revision, after)})
        return moved

    async def history(self, model: str, most: int) -> Sequence[Event]:
        """What was decided about the model's canaries, the newest first. Raises DatabaseUnavailable."""
        return await self._database.run(partial(progress.events, model, most))

    async def refresh(self) -> None:
        """Take over what other processes have set."""
        try:
            revision, rows, canaries = await self._database.run(partial(_read, self._revision))
        except DatabaseUnavailable as error:
            if not self._away:
                _log.error(
                    "database_away",
                    reason=str(error.__cause__ or error),
                    detail="The policies that were read last stay in force; a new one cannot be kept.",
                )
            self._away = True
            return
        if self._away:
            _log.info("database_back")
        self._away = False
        self._revision = revision
        self._take(rows, canaries)

    async def run(self) -> None:
        """Refresh again and again, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await self.refresh()
            except Exception:  # a fault of ours must not end the following
                _log.exception("policies_not_refreshed")

    def _take(self, rows: Sequence[_Row], canaries: _Canaries) -> None:
        for model, text, revision, updated in rows:
            known, updated = self.of(model), updated.replace(tzinfo=UTC)
            if (known.revision, known.updated) == (revision, updated):
                continue
            try:
                policy = _POLICY.validate_json(text)
            except ValidationError as error:  # of a later version of Tandem, or changed by hand
                _log.error("policy_unreadable", model=model, revision=revision, reason=str(error))
                continue
            self._kept[model] = Kept(policy, revision, updated)
            _log.info("policy", model=model, revision=revision, policy=policy.model_dump(mode="json"))
        self._follow(canaries)

    def _follow(self, canaries: _Canaries) -> None:
        for model, (revision, now) in canaries.items():
            kept = self._kept.get(model)
            if kept is None or kept.revision != revision or kept.progress == now:
                continue
            before, self._kept[model] = kept.progress, replace(kept, progress=now)
            if before is None or (before.step, before.state) != (now.step, now.state):
                _log.info("canary", model=model, revision=revision, step=now.step, state=now.state, why=now.why)


def _read(known: int, connection: Connection) -> tuple[int, Sequence[_Row], _Canaries]:
    revision = connection.scalar(select(func.coalesce(func.max(TABLE.c.revision), 0))) or 0
    return revision, [] if revision == known else _rows(connection), progress.read(connection)


def _write(model: str, policy: Policy, connection: Connection) -> tuple[Sequence[_Row], _Canaries]:
    lock(connection, TABLE)  # a revision must not be seen before the one below it
    others = TABLE.alias()
    values = {
        "policy": policy.model_dump_json(),
        "revision": select(func.coalesce(func.max(others.c.revision), 0) + 1).scalar_subquery(),
        "updated": datetime.now(UTC).replace(tzinfo=None),
    }
    if not connection.execute(update(TABLE).where(TABLE.c.model == model).values(values)).rowcount:
        connection.execute(insert(TABLE).values(model=model, **values))
    if isinstance(policy, Canary):
        revision = connection.scalars(select(TABLE.c.revision).where(TABLE.c.model == model)).one()
        why = f"{policy.to} answers {policy.steps[0]:.4g} of the requests, {policy.from_} the others"
        progress.begin(model, revision, time.time(), why, connection)
    else:
        progress.end(model, connection)
    return _rows(connection), progress.read(connection)


def _rows(connection: Connection) -> Sequence[_Row]:
    return connection.execute(select(TABLE.c.model, TABLE.c.policy, TABLE.c.revision, TABLE.c.updated)).all()
