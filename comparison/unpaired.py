"""Two targets that were never asked about the same tensors: requests spread over both by chance, stratified by time."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from comparison.dependence import DRIFT_DEGREE, lag_one_time
from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Observations
from comparison.quantile import quantile

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

PER_STRATUM: Final = 5
"""Requests of the rarer side in a stratum: fewer let less of the drift in, more give a steadier median of the other."""


@dataclass(frozen=True)
class Arrivals:
    """One target's inferences and when each arrived, in seconds; in any order.

    Raises ValueError for unequal lengths, and for a time that is none.
    """

    times: Floats
    seen: Observations

    def __post_init__(self) -> None:
        if self.times.shape != self.seen.seconds.shape:
            raise ValueError(f"{len(self.times)} times of {len(self.seen.seconds)} inferences: give one of each")
        if not np.isfinite(self.times).all():
            raise ValueError("a time of arrival is NaN or infinite: leave such an inference out")

    @property
    def in_order(self) -> Observations:
        order = np.argsort(self.times, kind="stable")
        return Observations(self.seen.seconds[order], self.seen.outcome[order])

    def ordered(self) -> tuple[Floats, Floats, int]:
        """Times and log latencies in time order, infinite for a time-out; and how many were sent and are unknown."""
        seen = self.in_order
        seconds, unknown = seen.ordered()
        return np.sort(self.times)[seen.known], np.log(seconds), unknown


@dataclass(frozen=True)
class Stratified:
    n: tuple[int, int]
    """Requests that a and b answered."""
    strata: int
    median_s: tuple[float, float] | None
    """Of a and b, over these requests."""
    ratio: Interval | TooFew
    """log of a's median over b's within a stratum; its n counts requests of the rarer side."""


def stratified_log_ratio(a: Arrivals, b: Arrivals, looks: Looks = Looks.ONE) -> Stratified:
    """log of a's median latency over b's at about the same time.

    A stratum is a stretch of time with a few requests of the rarer side. Each of these is compared with the median of
    the other side in its stratum, and the ratio is the median of that series. How the other's medians vary is in its
    long-run variance, since that is of many strata. Whoever chose the target must not have looked at speed: chance for
    each request, or keys that have nothing to do with it.
    """
    answered = int(a.seen.ok.sum()), int(b.seen.ok.sum())
    swap = answered[1] < answered[0]
    (times, rare, unknown), (other_times, other, lost) = (side.ordered() for side in ((b, a) if swap else (a, b)))
    differences, strata = _within_strata(times, rare, other_times, other)
    sign = -1.0 if swap else 1.0
    # An unknown latency of the other side moves a stratum's median, as if that share of the comparisons was unknown.
    blurred = ceil(len(rare) * lost / max(1, len(other) + lost))
    clear = ~np.isnan(differences)
    unclear = unknown + blurred + int((~clear).sum())
    # How the other's medians vary from stratum to stratum hides the memory of the series from its neighbours.
    memory = lag_one_time(rare, drift_degree=DRIFT_DEGREE)
    ratio = quantile(sign * differences[clear], 0.5, unknown=unclear, memory=memory, looks=looks).result
    medians = [float(np.median(side.seen.seconds[side.seen.ok])) for side in (a, b)] if min(answered) else []
    return Stratified(answered, strata, (medians[0], medians[1]) if medians else None, ratio)


def _within_strata(times: Floats, rare: Floats, other_times: Floats, other: Floats) -> tuple[Floats, int]:
    """Each rare one less the other side's median in its stratum, NaN where both are infinite; and how many strata."""
    if not len(times):
        return rare, 0
    starts = np.arange(0, len(times), PER_STRATUM)
    edges = (times[starts[1:] - 1] + times[starts[1:]]) / 2
    meanwhile = (times[0] <= other_times) & (other_times <= times[-1])
    stratum = np.searchsorted(edges, other_times[meanwhile], side="right")
    medians = _medians(stratum, other[meanwhile], len(starts))
    level = medians[np.searchsorted(edges, times, side="right")]
    compared = ~np.isnan(level)
    with np.errstate(invalid="ignore"):
        return (rare - level)[compared], int((~np.isnan(medians)).sum())


def _medians(stratum: Ints, values: Floats, strata: int) -> Floats:
    """Of each stratum's values, which may be infinite; NaN where it has none."""
    counts = np.bincount(stratum, minlength=strata)
    first = np.cumsum(counts) - counts
    ranked = np.append(values[np.lexsort((values, stratum))], np.nan)
    low, high = (ranked[np.where(counts > 0, first + half, -1)] for half in ((counts - 1) // 2, counts // 2))
    medians: Floats = np.where(low == high, low, (low + high) / 2)
    return medians
