"""Threads for work that would keep the event loop from everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.deadline import Deadline

T = TypeVar("T")


class Threads:
    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, deadline: Deadline, work: Callable[[], T]) -> T:
        """Do `work` off the event loop. Raises DeadlineExceeded."""
        async with deadline.guard():
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
