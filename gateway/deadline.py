"""A request's deadline: the moment after which nobody waits for its answer any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    at_s: float
    """On the monotonic clock, in seconds."""
    now: Callable[[], float] = field(default=time.monotonic, compare=False)

    @classmethod
    def after_ms(cls, timeout_ms: int, now: Callable[[], float] = time.monotonic) -> Deadline:
        return cls(now() + timeout_ms / 1000, now)

    @property
    def passed(self) -> bool:
        return self.now() >= self.at_s

    def remaining_s(self) -> float:
        """Seconds left. Raises DeadlineExceeded when there are none."""
        left = self.at_s - self.now()
        if left <= 0:
            raise DeadlineExceeded("The deadline passed before the answer was ready. Ask for a longer timeout_ms.")
        return left

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Run the block, cancelled at the deadline. Raises DeadlineExceeded."""
        left = self.remaining_s()
        try:
            async with asyncio.timeout(left) as timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            raise DeadlineExceeded(
                "The deadline passed before the answer was ready. Ask for a longer timeout_ms."
            ) from None
