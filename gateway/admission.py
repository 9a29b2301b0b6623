"""Admission: how many pictures may be at the workers, and how many requests may wait for places."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Gauge

from gateway.deadline import Deadline
from gateway.errors import Overloaded


class Admission:
    """A place for each picture. Requests without enough of them wait, in order, up to their deadline."""

    def __init__(self, what: str, *, max_inflight: int, max_queue: int, inflight: Gauge, waiting: Gauge) -> None:
        """`what` the places are for: `the torch runtime`. The gauges show places taken and requests waiting."""
        self._what = what
        self._max_inflight = self._free = max_inflight
        self._max_queue = max_queue
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._inflight_gauge = inflight
        self._queue_gauge = waiting

    @asynccontextmanager
    async def places(self, pictures: int, deadline: Deadline) -> AsyncIterator[None]:
        """Hold a place for each of so many pictures, for the block; all there are for a request with still more.

        Raises Overloaded when too many requests wait already, DeadlineExceeded while waiting.
        """
        count = min(pictures, self._max_inflight)
        await self._take(count, deadline)
        self._inflight_gauge.inc(count)
        try:
            yield
        finally:
            self._inflight_gauge.dec(count)
            self._give_back(count)

    @property
    def full(self) -> bool:
        """Whether a request that came now would be refused."""
        return len(self._waiting) >= self._max_queue and (self._free < 1 or bool(self._waiting))

    @property
    def busy(self) -> bool:
        """Whether a request that came now would have to wait."""
        return bool(self._waiting) or self._free < 1

    async def _take(self, count: int, deadline: Deadline) -> None:
        if not self._waiting and self._free >= count:
            self._free -= count
            return
        if len(self._waiting) >= self._max_queue:
            raise Overloaded(
                f"{len(self._waiting)} requests already wait for {self._what}. Try again later.",
                retry_after_s=1.0,
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = count, granted
        self._waiting.append(waiter)
        self._queue_gauge.inc()
        try:
            async with deadline.guard():
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled():  # granted at the very moment in which it gave up
                self._give_back(count)
            else:
                self._waiting.remove(waiter)
                self._give_back(0)  # those behind may need fewer
            raise
        finally:
            self._queue_gauge.dec()

    def _give_back(self, count: int) -> None:
        self._free += count
        while self._waiting and self._free >= self._waiting[0][0]:
            taken, granted = self._waiting.popleft()
            self._free -= taken
            granted.set_result(None)
