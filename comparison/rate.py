"""Shares of requests: an error rate, an agreement. Sane where all are alike."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
from scipy import special

from comparison.dependence import MIN_WAVES, dependence
from comparison.interval import Interval, Looks, TooFew, any_looks, critical
from comparison.observations import Bools

MIN_REQUESTS = ceil((MIN_WAVES / 0.41) ** 1.5)


def rate(happened: Bools, looks: Looks = Looks.ONE) -> Interval | TooFew:
    """Share that is true, of requests in time order.

    For one look Wilson's interval (J. Am. Stat. Assoc. 22, 1927), for any number of looks Clopper's and Pearson's
    (Biometrika 26, 1934), for the effective number of requests, as for surveys in clusters (Korn, Graubard, "Confidence
    intervals for proportions with small expected number of positive counts", Surv. Methodol. 24, 1998). Where all are
    alike no dependence can be seen, and every request counts. The bound may be looked at after each request.
    """
    n = len(happened)
    if n == 0:
        return TooFew(None, 0, 0.0, MIN_REQUESTS)
    share = float(happened.mean())
    seen = dependence(happened.astype(np.float64))
    effective = min(float(n), seen.effective_n)
    if seen.waves < MIN_WAVES:
        needed = max(MIN_REQUESTS, ceil(n * MIN_WAVES / max(seen.waves, 1)))
        return TooFew(share, n, effective, needed)
    low, high = (_wilson if looks is Looks.ONE else _exact)(share, effective, critical(looks, n, seen.waves), n)
    return Interval(share, low, high, looks, n, effective, seen.block)


def _wilson(share: float, effective: float, t: float, _: int) -> tuple[float, float]:
    centre = (share + t * t / (2 * effective)) / (1 + t * t / effective)
    reach = t * sqrt(share * (1 - share) / effective + t * t / (4 * effective**2)) / (1 + t * t / effective)
    return 0.0 if share == 0 else max(0.0, centre - reach), 1.0 if share == 1 else min(1.0, centre + reach)


def _exact(share: float, effective: float, t: float, n: int) -> tuple[float, float]:
    """Of the binomial distribution: far out in its tails, where bounds for many looks lie, Wilson's is too sure."""
    normal = any_looks(n)
    trials = effective * (normal / t) ** 2  # Korn, Graubard: for the uncertainty of the effective number
    tail, hits = special.ndtr(-normal), share * trials
    low = 0.0 if share == 0 else float(special.betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if share == 1 else float(special.betainccinv(hits + 1, trials - hits, tail))
    return low, high
