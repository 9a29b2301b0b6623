"""One worker, what is known of how it does, and whether it gets requests."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

from gateway.breaker import FAILURES, Breaker
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, RuntimeFailed, RuntimeFault, RuntimeUnavailable
from gateway.images.preprocess import ImageTensor
from gateway.metrics import Ejection
from gateway.runtimes import promise
from gateway.runtimes.base import ModelRef, ModelStatus, Output, Runtime
from gateway.runtimes.pace import Pace
from gateway.runtimes.promise import SpecOf
from gateway.runtimes.tls import Stamp

HUNG_S = 1.5
"""A worker that says nothing at all for so long, asked for its status, hangs."""
STALLED_S = 3.0
"""Of a model that hangs in its worker, whose status may be well, a picture has waited for so long and none was answered
since."""
MISSED_S = 0.5
"""Or FAILURES calls in a row have run out of their time that had so much of it, and none was answered since."""
_TIMES_THE_SLOWEST = 4.0
"""And they all have waited several times as long as the slowest answer took: a deadline alone says nothing."""
_POLL_MS = 3_000


class Replica:
    def __init__(
        self,
        address: str,
        worker: Runtime,
        *,
        stamp: Stamp,
        spec_of: SpecOf,
        ejected: Callable[[Ejection], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stamp`: of the files that its channel was opened with. `ejected` is told each time that it gets requests no
        longer."""
        self.address = address
        self.worker = worker
        self._spec_of = spec_of
        self.stamp = stamp
        self.inflight = 0
        self.turn = 0
        """When it was last given a picture."""
        self.serves: set[ModelRef] = set()
        self.joining: set[ModelRef] = set()
        self.set_aside: dict[ModelRef, float] = {}
        """Models for which others are to be asked, as long as there are any, and when it is tried again."""
        self.breakers: dict[ModelRef, Breaker] = defaultdict(lambda: Breaker(clock, lambda: ejected("failed")))
        """For each model: one that a worker cannot serve must not take the others with it."""
        self.paces: dict[ModelRef, Pace] = defaultdict(Pace)
        self.errors_in_a_row: dict[ModelRef, int] = defaultdict(int)
        self.gone = False
        self.hung = False
        """Whether it says nothing at all."""
        self._ejected = ejected
        self._clock = clock
        self._heard_s = clock()
        self._answered_s: dict[ModelRef, float] = {}
        self._missed_in_a_row: dict[ModelRef, int] = defaultdict(int)
        self._calls: dict[ModelRef, dict[asyncio.Timeout, float]] = defaultdict(dict)
        """The calls that wait for their answers, the oldest first, and when they began."""
        self._polls: dict[ModelRef, asyncio.Task[ModelStatus]] = {}
        self._asked_s: dict[ModelRef, float] = {}
        """When the polls that wait for their answers began."""

    @property
    def usable(self) -> bool:
        """Whether it gets requests now for any model."""
        return any(self.allows(model) and model not in self.set_aside for model in self.serves)

    def allows(self, model: ModelRef) -> bool:
        """Whether a call may begin now."""
        return not self.hung and self.breakers[model].allows

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        """Raises RuntimeFault; RuntimeUnavailable too where the worker is found to hang meanwhile."""
        calls, begin_s = self._calls[model], self._clock()
        self.inflight += 1
        try:
            with self.breakers[model].call():
                try:
                    async with asyncio.timeout(None) as patience:
                        calls[patience] = begin_s
                        try:
                            output = await self.ask(model, image, deadline=deadline)
                        finally:
                            del calls[patience]
                except TimeoutError:
                    raise RuntimeUnavailable(
                        f"The worker of the {self.worker.name} runtime does not answer any more. Try again later."
                    ) from None
        except DeadlineExceeded:
            self._missed(model, begin_s)
            raise
        except RuntimeFailed:
            self.errors_in_a_row[model] += 1
            self._heard(model)
            raise
        finally:
            self.inflight -= 1
        self.errors_in_a_row[model] = 0
        self._heard(model)
        self.paces[model].add(self._clock() - begin_s, self._clock())
        return output

    async def ask(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        """As `infer`, without a trace of it. Raises RuntimeFailed too for tensors that the model does not promise."""
        output = await self.worker.infer(model, image, deadline=deadline)
        if (spec := self._spec_of(model)) is not None:
            promise.keep(spec, output.tensors)
        return output

    def poll(self, model: ModelRef) -> asyncio.Task[ModelStatus]:
        """The question for the status of `model` that is under way, or else a new one."""
        poll = self._polls.get(model)
        if poll is None or poll.done():
            self._asked_s[model] = self._clock()
            poll = self._polls[model] = asyncio.get_running_loop().create_task(self._poll(model))
        return poll

    def check(self, model: ModelRef) -> None:
        """Find out whether the worker hangs, or `model` in it, and give up what waits for it then."""
        now_s = self._clock()
        # Only its own silence tells: a call that ran out of its time may have had little of it.
        asked_s = min(self._asked_s.values(), default=now_s)
        if not self.hung and now_s - max(asked_s, self._heard_s) >= HUNG_S:
            self.hung = True
            if self.serves:
                self._ejected("hung")
            for calls in self._calls.values():
                _give_up(calls)
        if calls := self._calls[model]:
            waits_s = now_s - max(next(iter(calls.values())), self._answered_s.get(model, 0.0))
            if waits_s >= self._patience_s(model, STALLED_S):
                self._stalls(model)

    def fails(self, model: ModelRef) -> bool:
        """Whether it has lately failed on every picture."""
        return self.errors_in_a_row[model] >= FAILURES

    def put_aside(self, model: ModelRef, why: Ejection, again_at_s: float) -> None:
        self.set_aside[model] = again_at_s
        self._ejected(why)

    def take_back(self, model: ModelRef) -> None:
        """It has shown that it answers as it should."""
        self.set_aside.pop(model, None)
        self.paces.pop(model, None)
        self.errors_in_a_row[model] = 0

    def forget(self, model: ModelRef) -> None:
        self.serves.discard(model)
        for kept in (self.set_aside, self.breakers, self.paces, self.errors_in_a_row, self._missed_in_a_row):
            kept.pop(model, None)

    async def close(self) -> None:
        for poll in self._polls.values():
            poll.cancel()
        await asyncio.gather(*self._polls.values(), return_exceptions=True)
        await self.worker.close()

    async def _poll(self, model: ModelRef) -> ModelStatus:
        try:
            status = await self.worker.status(model, deadline=Deadline.after_ms(_POLL_MS))
        except DeadlineExceeded:
            self.check(model)
            return ModelStatus("unavailable", f"The worker of the {self.worker.name} runtime did not answer in time.")
        except RuntimeFault as error:
            status = ModelStatus("unavailable", str(error))
        finally:
            self._asked_s.pop(model, None)
        if status.state == "unavailable":
            self.hung = False  # nobody is there at all: whoever comes is another one
        else:
            self._is_there()
        return status

    def _patience_s(self, model: ModelRef, least_s: float) -> float:
        return max(least_s, _TIMES_THE_SLOWEST * self.paces[model].slowest_s)

    def _missed(self, model: ModelRef, begin_s: float) -> None:
        waited_s = self._clock() - max(begin_s, self._answered_s.get(model, 0.0))
        if waited_s >= self._patience_s(model, MISSED_S):
            self._missed_in_a_row[model] += 1
            if self._missed_in_a_row[model] >= FAILURES:
                self._stalls(model)

    def _stalls(self, model: ModelRef) -> None:
        if self.breakers[model].trip():
            self._ejected("hung")
        _give_up(self._calls[model])

    def _heard(self, model: ModelRef) -> None:
        self._heard_s = self._answered_s[model] = self._clock()
        self._missed_in_a_row[model] = 0
        if self.hung:
            self._is_there()

    def _is_there(self) -> None:
        self._heard_s = self._clock()
        if self.hung:
            self.hung = False
            for breaker in self.breakers.values():
                breaker.reset()


def _give_up(calls: dict[asyncio.Timeout, float]) -> None:
    now_s = asyncio.get_running_loop().time()
    for patience in calls:
        if not patience.expired():
            patience.reschedule(now_s)
