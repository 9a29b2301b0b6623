"""Admission: how many pictures may be somewhere at once, and which requests may wait for places there.

A request that could not be answered before its deadline is refused at once: what would be done for it is lost for those
that can.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from prometheus_client import Gauge

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, Overloaded

_WEIGHT = 0.1
"""Of the newest picture in what is known of how long a place is held."""
_LEAST_RETRY_S = 1.0
_MARGIN = 2.0
"""A request is let in where it needs so many times less than it has: the queue need not be longer to keep the places
full, and what was let in and comes too late has been for nothing."""


@dataclass(eq=False)
class _Waiter:
    pictures: int
    deadline: Deadline
    granted: asyncio.Future[None]


class Admission:
    """A place for each picture. Requests without enough of them wait, in order, up to their deadline."""

    def __init__(
        self,
        what: str,
        *,
        most: Callable[[], int],
        max_queue: int,
        inflight: Gauge,
        waiting: Gauge,
        learn: Callable[[int, float], None] | None = None,
        foresees: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` the places are for: `the torch runtime`. `most`: how many there are now, at least one. `learn` is told
        how many are given back that were taken when, on the clock, while others wait. The gauges show places taken and
        requests waiting.

        `foresees`: whether a request is refused whose deadline would pass; else it waits until then.
        """
        self._what = what
        self._most = most
        self._tell = learn
        self._max_queue = max_queue
        self._taken = 0
        self._waiting: deque[_Waiter] = deque()
        self._waiting_pictures = 0
        self._coming = 0
        self._held_s: float | None = None
        self._spread_s = 0.0
        self._inflight_gauge = inflight
        self._queue_gauge = waiting
        self._foresees = foresees
        self._clock = clock

    @asynccontextmanager
    async def places(self, pictures: int, deadline: Deadline, *, then_s: float = 0.0) -> AsyncIterator[None]:
        """Hold a place for each of so many pictures, for the block; all there are for a request with still more.

        `then_s`: what the request needs after the block. Raises Overloaded when too many requests wait already or the
        wait would be too long, DeadlineExceeded while waiting.
        """
        count = min(pictures, self._most())
        await self._take(count, deadline, then_s)
        self._inflight_gauge.inc(count)
        start_s = self._clock()
        try:
            yield
        finally:
            self._inflight_gauge.dec(count)
            if self._tell is not None and self._waiting:
                self._tell(count, start_s)
            self._learn(self._clock() - start_s)
            self._give_back(count)

    def check(self, pictures: int, deadline: Deadline, *, then_s: float = 0.0) -> None:
        """Refuse, before anything is done for it, a request that may not be answered in time if the pace is not kept.

        Raises as `places`, which itself refuses only what can hardly be in time."""
        self._check(min(pictures, self._most()), deadline, then_s, _MARGIN)

    @contextmanager
    def coming(self, pictures: int) -> Iterator[None]:
        """Who asks now comes after so many pictures, which are prepared in the block and then need places."""
        self._coming += pictures
        try:
            yield
        finally:
            self._coming -= pictures

    @property
    def full(self) -> bool:
        """Whether a request that came now would be refused, however long it may wait."""
        return self._waiters() >= self._max_queue and self.busy

    @property
    def busy(self) -> bool:
        """Whether a request that came now would have to wait."""
        return self._ahead(1) > 0

    def need_s(self, pictures: int) -> float:
        """How long a request that came now would take here, as far as is known: the wait, and what places are held."""
        return self._wait_s(self._ahead(pictures)) + (self._held_s or 0.0)

    def _ahead(self, pictures: int) -> int:
        """How many must leave before so many more have a place: none where it is not above 0."""
        ahead = self._taken + self._waiting_pictures + self._coming + pictures - self._most()
        return max(ahead, 1) if self._waiting else ahead

    def _waiters(self) -> int:
        """Requests that wait, or will, of those that are known to come."""
        free = max(0, self._most() - self._taken - self._waiting_pictures)
        return len(self._waiting) + max(0, self._coming - free)

    def _wait_s(self, ahead: int) -> float:
        """Until so many have left. By Little's law: of the places, each is free after `_held_s`."""
        return max(0, ahead) * (self._held_s or 0.0) / self._most()

    async def _take(self, count: int, deadline: Deadline, then_s: float) -> None:
        if not self._waiting and self._fits(count):
            self._taken += count
            return
        self._check(count, deadline, then_s, 1.0)
        waiter = _Waiter(count, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._waiting_pictures += count
        self._queue_gauge.inc()
        try:
            async with deadline.guard():
                await waiter.granted
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._waiting_pictures -= count
                self._give_back(0)  # those behind may need fewer
            elif not waiter.granted.cancelled() and waiter.granted.exception() is None:
                self._give_back(count)  # granted at the very moment in which it gave up
            raise
        finally:
            self._queue_gauge.dec()

    def _check(self, count: int, deadline: Deadline, then_s: float, margin: float) -> None:
        left_s = deadline.remaining_s()
        ahead = self._ahead(count)
        if ahead <= 0:
            return
        wait_s = self._wait_s(ahead)
        if (waiters := self._waiters()) >= self._max_queue:
            raise Overloaded(
                f"{waiters} requests already wait for {self._what}. Try again later.",
                retry_after_s=max(_LEAST_RETRY_S, wait_s),
            )
        if margin * (wait_s + (self._held_s or 0.0) + then_s) > left_s:
            raise Overloaded(
                f"So many requests wait for {self._what} that this one would not be answered in time. Try again later, "
                "or ask for a longer timeout_ms.",
                retry_after_s=max(_LEAST_RETRY_S, wait_s),
            )

    def _fits(self, count: int) -> bool:
        return self._taken + count <= self._most() or not self._taken

    def _learn(self, held_s: float) -> None:
        if not self._foresees:
            return
        if self._held_s is None:
            self._held_s = held_s
        self._spread_s += _WEIGHT * (abs(held_s - self._held_s) - self._spread_s)
        self._held_s += _WEIGHT * (held_s - self._held_s)

    def _give_back(self, count: int) -> None:
        self._taken -= count
        while self._waiting:
            first = self._waiting[0]
            late = self._late(first)
            if not late and not self._fits(first.pictures):
                return
            self._waiting.popleft()
            self._waiting_pictures -= first.pictures
            if first.granted.done():  # cancelled, and not yet told
                continue
            if late:
                first.granted.set_exception(late)
            else:
                self._taken += first.pictures
                first.granted.set_result(None)

    def _late(self, waiter: _Waiter) -> DeadlineExceeded | None:
        """Whether a place is of no use to it any more: hardly one is held for so short a time."""
        left_s = waiter.deadline.at_s - self._clock()
        if left_s > (self._held_s or 0.0) - 2 * self._spread_s:
            return None
        return DeadlineExceeded(
            f"The wait for {self._what} took so long that the deadline could not be kept. Try again later, or ask for "
            "a longer timeout_ms."
        )
