"""An interval, what it is good for, and the answer where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import log, sqrt
from typing import Final

import numpy as np
from scipy import special

ALPHA: Final = 0.05
TIGHTEST_AT: Final = 2000
"""Pairs at which the bound for any number of looks is narrowest, for its level."""
_TUNING: Final = (-2 * log(ALPHA) + log(-2 * log(ALPHA)) + 1) / TIGHTEST_AT


class Looks(StrEnum):
    """How often data may be looked at before the interval's 95 % no longer hold."""

    ONE = "one look"
    ANY = "any number of looks"


@dataclass(frozen=True)
class Interval:
    """95 % interval."""

    estimate: float
    low: float
    high: float
    looks: Looks
    n: int
    effective_n: float
    """Independent observations that would tell as much."""
    block: int
    """Observations in a row that count as one, chosen from the data."""

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high

    def exp(self) -> Interval:
        """The interval of a ratio from that of its logarithm."""
        estimate, low, high = (float(np.exp(x)) for x in (self.estimate, self.low, self.high))
        return Interval(estimate, low, high, self.looks, self.n, self.effective_n, self.block)


@dataclass(frozen=True)
class TooFew:
    """Too few effective samples for an interval that keeps its 95 %."""

    estimate: float | None
    """None where there is no observation at all."""
    n: int
    effective_n: float
    needed: int
    """About how many observations like these it takes in all."""

    def exp(self) -> TooFew:
        return TooFew(
            None if self.estimate is None else float(np.exp(self.estimate)), self.n, self.effective_n, self.needed
        )


def critical(looks: Looks, n: int, waves: int) -> float:
    """Standard errors from the estimate to an end of the interval, when `waves` degrees of freedom estimated them.

    For any number of looks: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", Ann. Stat. 52 (2024), taken from the normal
    to Student's distribution at equal probability.
    """
    if looks is Looks.ONE:
        return -float(special.stdtrit(waves, ALPHA / 2))
    return -float(special.stdtrit(waves, special.ndtr(-any_looks(n))))


def any_looks(n: int) -> float:
    """The same with the standard error known."""
    spent = n * _TUNING
    return sqrt(2 * (spent + 1) / spent * log(sqrt(spent + 1) / ALPHA))
