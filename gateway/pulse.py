"""How the gateway's process itself does: its event loop, its tasks, its memory, its files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil

from gateway.metrics import Metrics

PERIOD_S = 0.5


class Pulse:
    """Beats every PERIOD_S, and sets the gauges then: in a process that shares `/metrics` with others, a gauge that is
    read when Prometheus asks would be that of the process which happens to answer."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._process = psutil.Process()

    async def run(self) -> None:
        """For ever."""
        self.beat(0.0)
        while True:
            start_s = self._clock()
            await asyncio.sleep(PERIOD_S)
            self.beat(self._clock() - start_s - PERIOD_S)

    def beat(self, lag_s: float) -> None:
        """`lag_s`: so much later than asked for the event loop came back to this."""
        self._metrics.event_loop_lag.observe(max(0.0, lag_s))
        self._metrics.tasks.set(len(asyncio.all_tasks()))
        self._metrics.resident_memory.set(self._process.memory_info().rss)
        self._metrics.open_fds.set(self._process.num_fds())
