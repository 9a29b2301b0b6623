"""How fast one worker answers for one model, as this process sees it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

ENOUGH = 20
"""The newest answers tell, so many, so that a worker that becomes slow is seen to be, however fast it was before."""
_RECENT_S = 30.0
"""If they came in that time."""
SLOW_TIMES = 4.0
"""A worker is slow that takes so many times what the others take."""
NOISE_S = 0.005
"""And takes so much longer, at least: of a small model's milliseconds a few are no sign."""


class Pace:
    def __init__(self) -> None:
        self._answers: deque[tuple[float, float]] = deque(maxlen=ENOUGH)

    def add(self, seconds: float, now_s: float) -> None:
        self._answers.append((now_s, seconds))

    def typical_s(self, now_s: float) -> float | None:
        """What half of the newest answers took at most: one that was late is no sign. None where too few have come."""
        if len(self._answers) < ENOUGH or self._answers[0][0] < now_s - _RECENT_S:
            return None
        return median(seconds for _, seconds in self._answers)

    @property
    def slowest_s(self) -> float:
        """The longest that one of the newest answers took; infinite where none has come."""
        return max((seconds for _, seconds in self._answers), default=math.inf)


def slow(typical_s: float, others_s: Sequence[float]) -> bool:
    """Whether `typical_s` is out of line with what the others take, at least one."""
    usual_s = median(others_s)
    return typical_s > SLOW_TIMES * usual_s and typical_s > usual_s + NOISE_S
