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
from gateway.inference import Answer, Inference, Picture, Question
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.router import Side
from gateway.runtimes.base import Runtime
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
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._disagreements = disagreements
        self._catalogue = catalogue
        self._metrics = metrics
        self._threads = Threads(1, "shadows")
        self._inference = Inference(runtimes, latencies=latencies, metrics=metrics, threads=self._threads)
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
        """Send `pictures` to `side` too, if there is room. Returns at once and raises nothing.

        `primary`: the primary's answer, cancelled if there is none. Its pictures are not needed.
        """
        held = sum(picture.tensor.nbytes + len(picture.data or b"") for picture in pictures)
        if self._held_bytes + held > self._settings.max_bytes:
            self._metrics.drop_shadow(side.spec.name, "memory_full")
        else:
            bare = [replace(picture, kept=None) for picture in pictures]
            task = asyncio.create_task(self._run(side, question, bare, clock.fork(), primary))
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
        pictures: Sequence[Picture],
        clock: StageClock,
        primary: asyncio.Future[Answer],
    ) -> None:
        try:
            with self._catalogue.using(side.spec):
                answer = await self._answer(side, question, pictures, clock)
            if answer is not None:
                await self._compare(question, answer, primary)
        except TandemError as error:
            _log.info("shadow_failed", model=side.spec.name, runtime=side.runtime, code=error.code, detail=str(error))
        except Exception:  # a fault of ours: nobody else would hear of it
            _log.exception("shadow_failed", model=side.spec.name, runtime=side.runtime)

    async def _answer(
        self, side: Side, question: Question, pictures: Sequence[Picture], clock: StageClock
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
            limits = replace(question.limits, deadline=deadline)
            copy = Question(side.spec, limits, deadline, request_id=question.request_id)
            return await self._inference.ask(side.runtime, copy, pictures, clock, role="shadow", places=held)

    async def _compare(self, question: Question, answer: Answer, primary: asyncio.Future[Answer]) -> None:
        await asyncio.wait([primary])
        if not primary.cancelled():
            own, first = replace(question, deadline=self._deadline()), primary.result()
            compared = await self._inference.agreement(own, first.found, answer.found)
            self._disagreements.offer(own, first, answer, compared)

    def _deadline(self) -> Deadline:
        return Deadline.after_ms(self._settings.timeout_ms)
