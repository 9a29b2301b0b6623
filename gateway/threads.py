"""Threads for work that would keep the event loop from everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from gateway.deadline import Deadline
from gateway.errors import Overloaded

_log = structlog.get_logger(__name__)
_RETRY_AFTER_S = 1.0
T = TypeVar("T")


class Threads:
    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, deadline: Deadline, work: Callable[[], T]) -> T:
        """Do `work` off the event loop. Raises DeadlineExceeded, and Overloaded where there is no memory for it."""
        async with deadline.guard():
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
            except MemoryError as error:
                _log.warning("out_of_memory", reason=str(error) or None)
                raise Overloaded(
                    "The gateway has no memory left for this request's pictures. Try again later, or send smaller or "
                    "fewer ones.",
                    retry_after_s=_RETRY_AFTER_S,
                ) from error

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
