"""Quantiles of the newest latencies, with those of which only a lower bound is known."""

from __future__ import annotations

import math
from itertools import accumulate
from operator import add

_LEAST_S = 0.0005
_STEP = 2**0.25
"""Each bucket ends this many times later than the one before: a quantile is at most so much too high."""
_BUCKETS = 72
"""To over two minutes, what only a deadline ends."""
_MEMORY = 200
"""After so many answers more, one counts 1/e of what it counted at first."""
_ENOUGH = 20
"""Of fewer answers no quantile says anything."""
_MOST_WEIGHT = 1e100


class DecayedHistogram:
    """It forgets by the answers that came after, not by time: while nobody answers, what is known stays known.

    An inference that was given up was at least as slow as that. To leave it out would make a target look faster the
    more of its slow ones are given up; it is counted as Kaplan and Meier's estimator does
    (https://doi.org/10.1080/01621459.1958.10501452).
    """

    def __init__(self) -> None:
        self._answered = [0.0] * _BUCKETS
        self._given_up = [0.0] * _BUCKETS
        self._weight = 1.0
        self._count = 0

    def answered(self, seconds: float) -> None:
        self._count += 1
        self._answered[_place(seconds)] += self._weight
        self._weight *= 1 + 1 / _MEMORY
        if self._weight > _MOST_WEIGHT:
            for counts in (self._answered, self._given_up):
                counts[:] = [count / self._weight for count in counts]
            self._weight = 1.0

    def given_up(self, seconds: float) -> None:
        self._given_up[_place(seconds)] += self._weight

    def quantile_s(self, share: float) -> float | None:
        """Within which that share is answered. None where too little is known.

        Where so many were given up that it cannot be told, it is within which nearly all of those answered that can
        be told of: what is known last, and never a value that grows by giving up later.
        """
        if self._count < _ENOUGH:
            return None
        # Summed from the end: what is subtracted from a sum leaves its rounding error behind.
        left = list(accumulate(map(add, reversed(self._answered), reversed(self._given_up))))[::-1]
        slower, curve = 1.0, []
        for answered, those_left in zip(self._answered, left, strict=True):
            if answered:
                slower *= 1 - answered / those_left
            curve.append(slower)
        wanted = share if curve[-1] <= 1 - share else 0.99 * (1 - curve[-1])
        if not wanted:
            return None
        # A little less, so that no rounding error takes it to the next bucket.
        place = next(i for i, each in enumerate(curve) if 1 - each >= wanted - 1e-9)
        return _LEAST_S * _STEP**place


def _place(seconds: float) -> int:
    return min(math.ceil(math.log(seconds / _LEAST_S, _STEP)), _BUCKETS - 1) if seconds > _LEAST_S else 0
