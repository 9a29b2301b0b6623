"""An interval, what it is good for, and the answer where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import floor, log, log10, sqrt
from typing import Final

import numpy as np
from scipy import special

ALPHA: Final = 0.05
TIGHTEST_AT: Final = 2000
"""Observations at which the bound for any number of looks is narrowest, for its level."""
FIRST_LOOK: Final = 315
SPACED: Final = 0.914
"""How much nearer the bound may be where looks are spaced: 5 % of crossings over all spaced looks together.

By numerical integration over Brownian motion (Armitage, McPherson, Rowe, "Repeated significance tests on accumulating
data", J. R. Stat. Soc. A 132, 1969); a test repeats it.
"""
_PREFERRED: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
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


def critical(looks: Looks, n: int, waves: int, *, spaced: bool = False) -> float:
    """Standard errors from the estimate to an end of the interval, when `waves` degrees of freedom estimated them.

    For any number of looks: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", Ann. Stat. 52 (2024), taken from the normal
    to Student's distribution at equal probability. `spaced`: the caller looks at spaced numbers of observations only.
    """
    if looks is Looks.ONE:
        return -float(special.stdtrit(waves, ALPHA / 2))
    return -float(special.stdtrit(waves, special.ndtr(-(SPACED if spaced else 1) * any_looks(n))))


def any_looks(n: int) -> float:
    """The same with the standard error known and a look after each observation."""
    spent = n * _TUNING
    return sqrt(2 * (spent + 1) / spent * log(sqrt(spent + 1) / ALPHA))


def spaced_look(n: int) -> int:
    """The last of the spaced looks up to n: 315, 400, 500, 630, 800, 1,000, 1,250, …; 0 before the first.

    The preferred numbers R10 of ISO 3: each about a quarter more than the one before.
    """
    return max((look for look in _around(n) if FIRST_LOOK <= look <= n), default=0)


def next_spaced_look(n: int) -> int:
    """The first of them from n on."""
    return min(look for look in _around(max(n, FIRST_LOOK)) if look >= n and look >= FIRST_LOOK)


def _around(n: int) -> list[int]:
    decade = floor(log10(n)) if n > 0 else 0
    return [round(step * 10.0**power) for power in (decade, decade + 1) for step in _PREFERRED]
