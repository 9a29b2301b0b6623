"""Copies of requests to a second target, whose answers are only measured.

Whatever becomes of a shadow, its primary does not notice: shadows have places, memory, threads, a deadline and tasks of
their own, and what there is no room for is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace

import structlog

from gateway.admission import Admission
from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.disagreements import Disagreements
from gateway.errors import DeadlineExceeded, Overloaded, TandemError
from gateway.health import Health
from gateway.inference import Answer, Inference, Picture, Question, row_of
from gateway.latencies import Latencies
from gateway.metrics import Metrics, ShadowDrop
from gateway.recording import Recorder, Withheld, withheld
from gateway.request_log import DROPPED, Row
from gateway.router import Side
from gateway.runtimes.base import ModelRef, Runtime
from gateway.settings import ShadowSettings
from gateway.stages import StageClock
from gateway.threads import Threads
from modelkit.spec import RuntimeName

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Copy:
    """What is asked of one target."""

    runtime: RuntimeName
    question: Question


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
            most=lambda: settings.max_inflight,
            max_queue=settings.max_queue,
            inflight=metrics.shadow_inflight,
            waiting=metrics.shadow_queue_depth,
            foresees=False,  # the wait is not part of a shadow's time at the runtime
        )
        self._random = random.Random()  # noqa: S311  not for secrets
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0

    def offer(
        self,
        side: Side,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        primary: asyncio.Future[Answer],
        control: Side | None = None,
    ) -> None:
        """Send `pictures` to `side` too, if there is room, once the primary has ended. Returns at once, raises nothing.

        `question`: the primary's, with a pair. `primary`: its answer, cancelled if there is none. Its pictures are not
        needed. `control`: a target that is asked as well, so that the two that are compared are asked alike, in an
        order by chance.
        """
        copies = self._copies(side, question, control)
        if self._places.full:  # what comes of it later is not worth a task now, while the primary is to be asked
            for copy in copies:
                self._drop(copy, "queue_full")
                self._log.record(self._dropped(copy, pictures, clock))
            return
        bare = [replace(picture, kept=None) for picture in pictures]
        task = asyncio.create_task(self._run(copies, bare, clock.fork(), primary))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Nobody waits for shadows: those under way are given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.close()

    def _copies(self, side: Side, question: Question, control: Side | None) -> Sequence[_Copy]:
        """In the order in which they are asked. The primary has been asked before a lone one."""

        def copy(side: Side, number: int, called: int) -> _Copy:
            origin = replace(question.origin, side=number, called=called)
            return _Copy(side.runtime, replace(question, spec=side.spec, origin=origin, keep_originals=False))

        if control is None:
            return [copy(side, 1, 1)]
        first = self._random.getrandbits(1)
        return sorted((copy(control, 0, first), copy(side, 1, 1 - first)), key=lambda each: each.question.origin.called)

    async def _run(
        self, copies: Sequence[_Copy], pictures: Sequence[Picture], clock: StageClock, primary: asyncio.Future[Answer]
    ) -> None:
        # However this ends, each has its row.
        with ExitStack() as held:
            rows = [held.enter_context(withheld(self._log)) for _ in copies]
            clocks = [clock.fork() for _ in copies]
            for copy, row in zip(copies, rows, strict=True):
                row.record(self._dropped(copy, pictures, clock))  # unless it comes to more
                held.enter_context(self._catalogue.using(copy.question.spec))
            # At the same time they would take the cores, and this event loop, from each other.
            await asyncio.wait([primary])
            # Until then the primary's request held the same tensors.
            if not held.enter_context(self._memory(pictures)):
                for copy in copies:
                    self._drop(copy, "memory_full")
                return
            for copy, row, own in zip(copies, rows, clocks, strict=True):
                await self._ask(copy, pictures, own, primary, row)

    @contextmanager
    def _memory(self, pictures: Sequence[Picture]) -> Iterator[bool]:
        """Gives whether there is room for `pictures` in this block."""
        wanted = sum(picture.tensor.nbytes + len(picture.data or b"") for picture in pictures)
        if self._held_bytes + wanted > self._settings.max_bytes:
            yield False
            return
        self._held_bytes += wanted
        try:
            yield True
        finally:
            self._held_bytes -= wanted

    async def _ask(
        self,
        copy: _Copy,
        pictures: Sequence[Picture],
        clock: StageClock,
        primary: asyncio.Future[Answer],
        row: Withheld,
    ) -> None:
        """Raises nothing: the other one is asked in any case."""
        model = copy.question.spec.name
        try:
            answer = await self._answer(copy, pictures, clock, row)
            if answer is not None and copy.question.origin.side and not primary.cancelled():
                await self._compare(copy.question, primary.result(), answer, row)
        except TandemError as error:
            _log.info("shadow_failed", model=model, runtime=copy.runtime, code=error.code, detail=str(error))
        except Exception:  # a fault of ours: nobody else would hear of it
            _log.exception("shadow_failed", model=model, runtime=copy.runtime)

    async def _answer(
        self, copy: _Copy, pictures: Sequence[Picture], clock: StageClock, log: Recorder
    ) -> Answer | None:
        """None where it was dropped. Raises TandemError."""
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._places.places(len(pictures), self._deadline()))
            except (Overloaded, DeadlineExceeded) as error:
                self._drop(copy, "queue_full" if isinstance(error, Overloaded) else "expired")
                return None
            # The wait was for a place of the shadows, of which there are few: it says nothing about the runtime.
            clock.skip()
            question = copy.question.until(self._deadline())
            return await self._inference.ask(
                copy.runtime, question, pictures, clock, role="shadow", places=held, log=log
            )

    async def _compare(self, question: Question, first: Answer, answer: Answer, row: Withheld) -> None:
        own = replace(question, deadline=self._deadline())
        compared = await self._inference.agreement(own, first.found, answer.found, row=row)
        self._disagreements.offer(own, first, answer, compared)

    def _drop(self, copy: _Copy, reason: ShadowDrop) -> None:
        self._metrics.drop_shadow(copy.question.spec.name, reason)

    def _dropped(self, copy: _Copy, pictures: Sequence[Picture], clock: StageClock) -> Row:
        cold, seconds = self._health.cold(copy.runtime, ModelRef.of(copy.question.spec)), dict(clock.seconds)
        return row_of(copy.question, copy.runtime, "shadow", DROPPED, images=len(pictures), seconds=seconds, cold=cold)

    def _deadline(self) -> Deadline:
        return Deadline.after_ms(self._settings.timeout_ms)
