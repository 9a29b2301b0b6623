"""Quantiles of a dependent series, with intervals: p50, p95, p99, and the median of log-ratios."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from comparison.dependence import MIN_WAVES, Dependence, dependence, lag_one_time
from comparison.interval import Interval, Looks, TooFew, critical, next_spaced_look, spaced_look

Floats = NDArray[np.float64]

MIN_N: Final = 300
MIN_TAIL_N: Final = 20_000
"""For a quantile of the tail: tails are made of bursts, which are rare, and a short run may have seen none."""
MIN_BEYOND: Final = 500
"""Observations beyond a quantile of the tail."""
MIN_EFFECTIVE_BEYOND: Final = 15.0
MIN_MEMORIES: Final = 45.0
"""Autocorrelation times that a series must last."""
_TAIL: Final = 0.9


@dataclass(frozen=True)
class Quantile:
    result: Interval | TooFew
    dependence: Dependence
    """Of the series that says whether each value is at or below the estimate."""


def quantile(
    series: Floats,
    p: float,
    *,
    unknown: int = 0,
    drift_degree: int = 0,
    memory: float = 1.0,
    looks: Looks = Looks.ONE,
) -> Quantile:
    """The p-quantile of values in time order; they may be infinite, not NaN.

    `unknown` values were censored: the interval holds wherever they lie. An end may be infinite: beyond all known.
    `memory`: an autocorrelation time that is known to be reached. For any number of looks the interval is that of the
    last spaced look: of so many values from the start.

    Woodruff's interval (J. Am. Stat. Assoc. 47, 1952): the end q is where the share of values below it is as far from p
    as chance takes it, with the dependence as it is at q itself, and the binomial's skewness (Cornish, Fisher, 1938).
    """
    if np.isnan(series).any():
        raise ValueError("a value is NaN: leave it out and count it in `unknown`")
    seen = len(series)
    if seen == 0:
        return Quantile(TooFew(None, 0, 0.0, _needed(p, looks)), dependence(series))
    if looks is Looks.ANY:
        series = series[: spaced_look(seen) or seen]
    n = len(series)
    ordered = np.sort(series)
    estimate = _at(ordered, p)
    memory = max(memory, lag_one_time(series, drift_degree=drift_degree))
    centre = _Shares.at(series, estimate, p, drift_degree, memory, looks)
    beyond = min(p, 1 - p)
    short = max(
        _needed(p, looks) / n,
        MIN_MEMORIES * memory / n,
        MIN_WAVES / max(centre.dependence.waves, 1),
        MIN_EFFECTIVE_BEYOND / max(centre.effective_n * beyond, 1.0),
    )
    if short > 1:
        needed = ceil(n * short)
        if looks is Looks.ANY:
            needed = next_spaced_look(max(needed, seen + 1))
        return Quantile(TooFew(estimate, seen, centre.effective_n, needed), centre.dependence)
    low = min(centre.low, _Shares.at(series, _at(ordered, centre.low), p, drift_degree, memory, looks).low)
    high = max(centre.high, _Shares.at(series, _at(ordered, centre.high), p, drift_degree, memory, looks).high)
    total = n + unknown
    interval = Interval(
        estimate,
        _at(ordered, (low * total - unknown) / n) if low * total > unknown else -np.inf,
        _at(ordered, high * total / n) if high * total < n else np.inf,
        looks,
        n,
        min(centre.effective_n, float(n)),
        centre.dependence.block,
    )
    return Quantile(interval, centre.dependence)


@dataclass(frozen=True)
class _Shares:
    """Between which shares of the values the p-quantile lies, judged by the dependence at one candidate for it."""

    low: float
    high: float
    effective_n: float
    dependence: Dependence

    @classmethod
    def at(cls, series: Floats, candidate: float, p: float, drift_degree: int, memory: float, looks: Looks) -> _Shares:
        # A tie counts half, so that constant values show no chance at all.
        below = (series < candidate) + 0.5 * (series == candidate)
        seen = dependence(below, drift_degree=drift_degree, memory=memory)
        effective = seen.effective_n
        if seen.waves == 0 or effective <= 0:
            return cls(0.0, 1.0, 0.0, seen)
        t = critical(looks, seen.n, seen.waves, spaced=True)
        reach = t * np.sqrt(p * (1 - p) / effective)
        skew = (t * t - 1) / 6 * (1 - 2 * p) / effective
        return cls(max(0.0, p - reach - skew), min(1.0, p + reach - skew), effective, seen)


def _needed(p: float, looks: Looks) -> int:
    n = max(MIN_TAIL_N, round(MIN_BEYOND / (1 - p))) if p >= _TAIL else MIN_N
    return n if looks is Looks.ONE else next_spaced_look(n)


def _at(ordered: Floats, share: float) -> float:
    """Linear between neighbours, which may be infinite (Hazen's plotting position)."""
    place = min(max(share * len(ordered) - 0.5, 0.0), len(ordered) - 1.0)
    i = int(place)
    if place == i or ordered[i] == ordered[i + 1]:
        return float(ordered[i])
    return float(ordered[i] + (place - i) * (ordered[i + 1] - ordered[i]))
