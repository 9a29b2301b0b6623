"""How many pairs it takes to show a difference."""

from __future__ import annotations

from math import ceil, inf
from typing import Final

from scipy import stats

from comparison.interval import SPACED, Interval, any_looks, next_spaced_look

_POWER: Final = 0.8
_MOST: Final = 10**9


def pairs_that_show(difference: float, once: Interval) -> int:
    """Pairs in all after which a log-ratio of that size is claimed, at any number of looks, in 80 % of cases.

    Takes the standard error from the one-look interval at hand, which shrinks with the root of the pairs.
    """
    error = (once.high - once.low) / 2 / stats.norm.isf(0.025)
    if not error < inf:
        return _MOST
    n = float(once.n)
    for _ in range(50):  # any_looks changes with log log n: a few rounds suffice
        n = min(
            float(_MOST),
            max(1.0, once.n * (error * (SPACED * any_looks(round(n)) + stats.norm.ppf(_POWER)) / difference) ** 2),
        )
    return next_spaced_look(ceil(n))
