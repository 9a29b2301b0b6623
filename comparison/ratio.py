"""How the latencies of two targets in pairs relate: the medians of pairs, and the ratios of quantiles."""

from __future__ import annotations

from math import sqrt

import numpy as np

from comparison.dependence import DRIFT_DEGREE, long_run_correlation
from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Observations, Pairs
from comparison.quantile import quantile


def paired_log_ratio(pairs: Pairs, looks: Looks = Looks.ONE) -> Interval | TooFew:
    """Median of log(a/b) over pairs.

    The drift of both is in neither; what remains of it is counted as chance. Bursts of one target do not move the
    median: those show in the ratios of p95 and p99.
    """
    ratios, unknown = pairs.log_ratios()
    return quantile(ratios, 0.5, unknown=unknown, looks=looks).result


def paired_difference(pairs: Pairs, looks: Looks = Looks.ONE) -> Interval | TooFew:
    """Median of a - b over pairs, in seconds. Where the traffic's level moves, so may it, and the ratio says more."""
    differences, unknown = pairs.differences()
    return quantile(differences, 0.5, unknown=unknown, looks=looks).result


def latency_quantile(target: Observations, p: float) -> Interval | TooFew:
    """In seconds, one look. Time-outs are slower than all answers; an infinite end is beyond the deadline."""
    seconds, unknown = target.ordered()
    return quantile(seconds, p, unknown=unknown, drift_degree=DRIFT_DEGREE).result


def quantile_log_ratio(pairs: Pairs, p: float, looks: Looks = Looks.ONE) -> Interval | TooFew:
    """log of a's p-quantile over b's, over the pairs that both answered.

    From each target's interval and how the two vary together: MOVER with correlation (Zou, Donner, "Construction of
    confidence limits about effect measures", Stat. Med. 27, 2008), so that no density has to be estimated.
    """
    complete = pairs.complete
    unknown = len(pairs) - int(complete.sum())
    a, b = (
        quantile(np.log(side.seconds[complete]), p, unknown=unknown, drift_degree=DRIFT_DEGREE, looks=looks)
        for side in (pairs.a, pairs.b)
    )
    x, y = a.result, b.result
    if isinstance(x, TooFew) or isinstance(y, TooFew):
        return _fewest(x, y)
    together = long_run_correlation(a.dependence, b.dependence)

    def reach(mine: float, its: float) -> float:
        return sqrt(max(mine**2 + its**2 - 2 * together * mine * its, 0.0)) if np.isfinite(mine + its) else np.inf

    estimate = x.estimate - y.estimate
    return Interval(
        estimate,
        estimate - reach(x.estimate - x.low, y.high - y.estimate),
        estimate + reach(x.high - x.estimate, y.estimate - y.low),
        looks,
        x.n,
        min(x.effective_n, y.effective_n),
        max(x.block, y.block),
    )


def _fewest(x: Interval | TooFew, y: Interval | TooFew) -> TooFew:
    estimate = None if x.estimate is None or y.estimate is None else x.estimate - y.estimate
    needed = max(r.needed for r in (x, y) if isinstance(r, TooFew))
    return TooFew(estimate, x.n, min(x.effective_n, y.effective_n), needed)
