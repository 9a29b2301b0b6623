"""Copies of requests to a second target, whose answers are only measured.

Whatever becomes of a shadow, its primary does not notice: shadows have places, memory, threads, a deadline and tasks of
their own, and what there is no room for is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import structlog

from gateway.admission import Admission
from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.disagreements import Disagreements
from gateway.errors import DeadlineExceeded, Overloaded, TandemError
from gateway.health import Health
from gateway.inference import Answer, Inference, Picture, Question, row_of
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.recording import Recorder, Withheld, withheld
from gateway.request_log import DROPPED, Row
from gateway.router import Side
from gateway.runtimes.base import ModelRef, Runtime
from gateway.settings import ShadowSettings
from gateway.stages import StageClock
from gateway.threads import Threads
from modelkit.spec import RuntimeName

_log = structlog.get_logger(__name__)


class Shadows:
    def __init__(
        self,
        settings: ShadowSettings,
        *,
        runtimes: Mapping[RuntimeName, Runtime],
        catalogue: Catalogue,
        latencies: Latencies,
        disagreements: Disagreements,
        health: Health,
        metrics: Metrics,
        log: Recorder,
    ) -> None:
        self._settings = settings
        self._disagreements = disagreements
        self._catalogue = catalogue
        self._health = health
        self._metrics = metrics
        self._log = log
        self._threads = Threads(1, "shadows")
        self._inference = Inference(
            runtimes, latencies=latencies, health=health, metrics=metrics, threads=self._threads
        )
        self._places = Admission(
            "shadows",
            max_inflight=settings.max_inflight,
            max_queue=settings.max_queue,
            inflight=metrics.shadow_inflight,
            waiting=metrics.shadow_queue_depth,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0

    def offer(
        self,
        side: Side,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        primary: asyncio.Future[Answer],
    ) -> None:
        """Send `pictures` to `side` too, if there is room, once the primary has ended. Returns at once, raises nothing.

        `question`: the primary's, which is of a pair. `primary`: its answer, cancelled if there is none. Its pictures
        are not needed.
        """
        held = sum(picture.tensor.nbytes + len(picture.data or b"") for picture in pictures)
        copy = replace(question, spec=side.spec, origin=replace(question.origin, side=1, called=1))
        if self._held_bytes + held > self._settings.max_bytes:
            self._metrics.drop_shadow(side.spec.name, "memory_full")
            self._log.record(self._dropped(side, copy, pictures, clock))
        else:
            bare = [replace(picture, kept=None) for picture in pictures]
            task = asyncio.create_task(self._run(side, question, copy, bare, clock.fork(), primary))
            self._held_bytes += held
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, held))

    async def close(self) -> None:
        """Nobody waits for shadows: those under way are given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.close()

    def _done(self, held: int, task: asyncio.Task[None]) -> None:
        self._held_bytes -= held
        self._tasks.discard(task)

    async def _run(
        self,
        side: Side,
        question: Question,
        copy: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        primary: asyncio.Future[Answer],
    ) -> None:
        try:
            with withheld(self._log) as row:
                row.record(self._dropped(side, copy, pictures, clock))  # unless it comes to more
                # At the same time the two would take the cores, and this event loop, from each other.
                await asyncio.wait([primary])
                with self._catalogue.using(side.spec):
                    answer = await self._answer(side, copy, pictures, clock, row)
                if answer is not None and not primary.cancelled():
                    await self._compare(question, primary.result(), answer, row)
        except TandemError as error:
            _log.info("shadow_failed", model=side.spec.name, runtime=side.runtime, code=error.code, detail=str(error))
        except Exception:  # a fault of ours: nobody else would hear of it
            _log.exception("shadow_failed", model=side.spec.name, runtime=side.runtime)

    async def _answer(
        self, side: Side, copy: Question, pictures: Sequence[Picture], clock: StageClock, log: Recorder
    ) -> Answer | None:
        """None where it was dropped. Raises TandemError."""
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._places.places(len(pictures), self._deadline()))
            except (Overloaded, DeadlineExceeded) as error:
                self._metrics.drop_shadow(side.spec.name, "queue_full" if isinstance(error, Overloaded) else "expired")
                return None
            # The wait was for a place of the shadows, of which there are few: it says nothing about the runtime.
            clock.skip()
            deadline = self._deadline()
            copy = replace(
                copy, limits=replace(copy.limits, deadline=deadline), deadline=deadline, keep_originals=False
            )
            return await self._inference.ask(side.runtime, copy, pictures, clock, role="shadow", places=held, log=log)

    async def _compare(self, question: Question, first: Answer, answer: Answer, row: Withheld) -> None:
        own = replace(question, deadline=self._deadline())
        compared = await self._inference.agreement(own, first.found, answer.found, row=row)
        self._disagreements.offer(own, first, answer, compared)

    def _dropped(self, side: Side, copy: Question, pictures: Sequence[Picture], clock: StageClock) -> Row:
        cold, seconds = self._health.cold(side.runtime, ModelRef.of(side.spec)), dict(clock.seconds)
        return row_of(copy, side.runtime, "shadow", DROPPED, images=len(pictures), seconds=seconds, cold=cold)

    def _deadline(self) -> Deadline:
        return Deadline.after_ms(self._settings.timeout_ms)
