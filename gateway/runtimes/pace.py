"""How fast one worker answers for one model, as this process sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

_DECAY_S = 30.0
"""After so long an answer counts 1/e of what it counted at first."""
ENOUGH = 20
"""So many recent answers make a worker's pace known."""
SLOW_TIMES = 4.0
"""A worker is slow that takes so many times what the others take."""
NOISE_S = 0.005
"""And takes so much longer, at least: of a small model's milliseconds a few are no sign."""


class Pace:
    def __init__(self) -> None:
        self._seconds = 0.0
        self._weight = 0.0
        self._slowest_s = 0.0
        self._seen_s = -math.inf

    def add(self, seconds: float, now_s: float) -> None:
        kept = math.exp((self._seen_s - now_s) / _DECAY_S)
        self._seconds = self._seconds * kept + seconds
        self._weight = self._weight * kept + 1
        self._slowest_s = max(self._slowest_s * kept, seconds)
        self._seen_s = now_s

    @property
    def mean_s(self) -> float | None:
        """None where too few answers have come lately."""
        return self._seconds / self._weight if self._weight >= ENOUGH else None

    @property
    def slowest_s(self) -> float:
        """About the longest that an answer has taken lately; infinite where none has come."""
        return self._slowest_s if self._weight else math.inf


def slow(mean_s: float, others_s: Sequence[float]) -> bool:
    """Whether `mean_s` is out of line with what the others take, at least one."""
    usual_s = median(others_s)
    return mean_s > SLOW_TIMES * usual_s and mean_s > usual_s + NOISE_S
