"""How many pixels may be in memory at once: a small file can hold a picture of hundreds of megabytes."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from threading import Lock

from prometheus_client import Gauge

from gateway.deadline import Deadline


@dataclass(eq=False)
class _Waiter:
    count: int
    granted: asyncio.Future[None]


class Pixels:
    """A picture takes its pixels before it is decoded. Who finds too few waits on the event loop, in order: that keeps
    no thread from others, and a large picture's turn comes however many small ones there are."""

    def __init__(self, most: int, taken: Gauge) -> None:
        """`most` at once; a picture that has more takes all. `taken` shows how many are."""
        self._most = most
        self._taken = 0
        self._waiting: deque[_Waiter] = deque()
        self._lock = Lock()
        self._gauge = taken

    def take(self, wanted: int) -> int:
        """How many it took: `wanted`, all there are for more, or 0 where too few are free. From any thread."""
        count = min(wanted, self._most)
        with self._lock:
            if self._waiting or self._taken + count > self._most:
                return 0
            self._taken += count
        self._gauge.inc(count)
        return count

    async def wait_for(self, wanted: int, deadline: Deadline) -> int:
        """As `take`, once there are enough of them. Raises DeadlineExceeded."""
        waiter = _Waiter(min(wanted, self._most), asyncio.get_running_loop().create_future())
        with self._lock:
            self._waiting.append(waiter)
        self._grant()
        try:
            async with deadline.guard():
                await waiter.granted
        except BaseException:
            with self._lock:
                waits = waiter in self._waiting
                if waits:
                    self._waiting.remove(waiter)
            if waits:
                self._grant()  # those behind may need fewer
            elif not waiter.granted.cancel() and not waiter.granted.cancelled():
                self.give_back(waiter.count)  # granted at the very moment in which it gave up
            raise
        return waiter.count

    def give_back(self, count: int) -> None:
        """From any thread."""
        if count == 0:
            return
        with self._lock:
            self._taken -= count
        self._gauge.dec(count)
        self._grant()

    def _grant(self) -> None:
        with self._lock:
            while self._waiting and self._taken + self._waiting[0].count <= self._most:
                waiter = self._waiting.popleft()
                self._taken += waiter.count
                self._gauge.inc(waiter.count)
                waiter.granted.get_loop().call_soon_threadsafe(self._tell, waiter)

    def _tell(self, waiter: _Waiter) -> None:
        if waiter.granted.done():  # cancelled before it was told
            self.give_back(waiter.count)
        else:
            waiter.granted.set_result(None)
