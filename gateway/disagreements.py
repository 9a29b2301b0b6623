"""Keeps pictures about which two answers differ, with both answers. Off by default: pictures are private."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import structlog

from gateway import disagreement_table
from gateway.agreement import Compared
from gateway.database import Database
from gateway.disagreement_table import Disagreement, Said, Seen
from gateway.errors import DatabaseUnavailable, DisagreementNotFound
from gateway.inference import Answer, Question
from gateway.metrics import Metrics
from gateway.settings import DisagreementSettings

_log = structlog.get_logger(__name__)

WAITING = 8
"""Most that wait to be written."""
WAITING_BYTES = 32_000_000
"""Most bytes of the pictures that wait to be written."""


class Disagreements:
    """No request waits for them to be kept: what cannot be written soon is dropped, and counted."""

    def __init__(self, settings: DisagreementSettings, database: Database, *, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._waiting: asyncio.Queue[Seen] = asyncio.Queue(WAITING)
        self._waiting_bytes = 0
        self._away = False

    @property
    def wanted(self) -> bool:
        """Whether any are kept: pictures must then be at hand as they were uploaded."""
        return self._settings.max_count > 0

    def offer(self, question: Question, first: Answer, second: Answer, compared: Compared) -> None:
        """Keep the pictures about which the two answers differ. Returns at once.

        They are taken from `second`, which was asked about the same ones: those of `first` may have been let go.
        """
        if not self.wanted:
            return
        for image, (same, _) in enumerate(compared.pictures):
            if same:
                continue
            seen = Seen(
                time=time.time(),
                request_id=question.origin.request_id,
                spec=question.spec,
                image=image,
                picture=second.pictures[image].upload,
                first=_said(first, image),
                second=_said(second, image),
            )
            if self._waiting.full() or self._waiting_bytes + len(seen.picture) > WAITING_BYTES:
                self._count(seen, kept=False)
            else:
                self._waiting_bytes += len(seen.picture)
                self._waiting.put_nowait(seen)

    async def run(self) -> None:
        """Write what is offered, until cancelled."""
        while True:
            await self.write_one()

    async def write_one(self) -> None:
        """Wait for one, and write it. Raises nothing."""
        seen = await self._waiting.get()
        try:
            kept = await self._keep(seen)
        except Exception:  # a fault of ours must not end the writing
            _log.exception("disagreement_not_kept", model=seen.spec.name, request=seen.request_id)
            kept = False
        self._waiting_bytes -= len(seen.picture)
        self._count(seen, kept=kept)

    async def newest(self, model: str | None, *, limit: int, before: int | None) -> list[Disagreement]:
        """At most `limit`, newest first, without masks; of all models or one; with an id below `before`.

        Raises DatabaseUnavailable.
        """
        return await self._database.run(partial(disagreement_table.newest, model, limit, before))

    async def find(self, number: int) -> Disagreement:
        """Raises DisagreementNotFound, DatabaseUnavailable."""
        found = await self._database.run(partial(disagreement_table.find, number))
        if found is None:
            raise _gone(number)
        return found

    async def picture(self, number: int) -> bytes:
        """As it was uploaded. Raises DisagreementNotFound, DatabaseUnavailable."""
        found = await self._database.run(partial(disagreement_table.find_picture, number))
        if found is None:
            raise _gone(number)
        return found

    async def clear(self, model: str | None) -> int:
        """Remove those of a model, or all; how many they were. Raises DatabaseUnavailable."""
        return await self._database.run(partial(disagreement_table.clear, model))

    async def _keep(self, seen: Seen) -> bool:
        try:
            kept = await self._database.run(partial(disagreement_table.write, seen, self._settings))
        except DatabaseUnavailable as error:
            if not self._away:
                _log.error("disagreements_not_kept", reason=str(error.__cause__ or error))
            self._away = True
            return False
        self._away = False
        return kept

    def _count(self, seen: Seen, *, kept: bool) -> None:
        # Both at once: of a series that appears with its first count, Prometheus sees no increase.
        counters = {outcome: self._metrics.disagreements.labels(seen.spec.name, outcome) for outcome in _OUTCOMES}
        counters["kept" if kept else "dropped"].inc()


_OUTCOMES = ("kept", "dropped")


def _said(answer: Answer, image: int) -> Said:
    return Said(answer.runtime, answer.spec.version, answer.clock.timing_ms(), answer.found[image])


def _gone(number: int) -> DisagreementNotFound:
    return DisagreementNotFound(
        f"No disagreement {number} is kept. The oldest go when new ones come: GET /v1/disagreements lists them."
    )
