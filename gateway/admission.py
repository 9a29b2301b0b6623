"""Admission: how many requests may be at a runtime, and how many may wait for a place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.deadline import Deadline
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from modelkit.spec import RuntimeName


class Admission:
    """A place for each request at one runtime. Those without one wait, in order, up to their deadline."""

    def __init__(self, runtime: RuntimeName, *, max_inflight: int, max_queue: int, metrics: Metrics) -> None:
        self._runtime = runtime
        self._places = asyncio.Semaphore(max_inflight)
        self._max_queue = max_queue
        self._waiting = 0
        self._inflight_gauge = metrics.inflight.labels(runtime)
        self._queue_gauge = metrics.queue_depth.labels(runtime)

    @asynccontextmanager
    async def place(self, deadline: Deadline) -> AsyncIterator[None]:
        """Hold a place for the block. Raises Overloaded when too many wait already, DeadlineExceeded while waiting."""
        await self._enter(deadline)
        self._inflight_gauge.inc()
        try:
            yield
        finally:
            self._inflight_gauge.dec()
            self._places.release()

    async def _enter(self, deadline: Deadline) -> None:
        if not self._places.locked():
            await self._places.acquire()  # does not wait
            return
        if self._waiting >= self._max_queue:
            raise Overloaded(
                f"{self._waiting} requests already wait for the {self._runtime} runtime. Try again later.",
                retry_after_s=1.0,
            )
        self._waiting += 1
        self._queue_gauge.inc()
        try:
            async with deadline.guard():
                await self._places.acquire()
        finally:
            self._waiting -= 1
            self._queue_gauge.dec()
