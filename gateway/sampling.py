"""Log lines of which there may be too many."""

from __future__ import annotations

import time
from collections.abc import Callable


class Sampling:
    """The first few of each second are written, the others counted."""

    def __init__(self, most_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most_per_s
        self._clock = clock
        self._second = 0
        self._written = 0
        self._left_out = 0

    def left_out(self) -> int | None:
        """How many were left out since the last that was written; None: this one is left out, too."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= self._most:
            self._left_out += 1
            return None
        self._written += 1
        count, self._left_out = self._left_out, 0
        return count
