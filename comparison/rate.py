"""Shares of requests: an error rate, an agreement. Sane where all are alike."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

from comparison.dependence import MIN_WAVES, dependence
from comparison.interval import Interval, Looks, TooFew, critical
from comparison.observations import Bools

MIN_REQUESTS = ceil((MIN_WAVES / 0.41) ** 1.5)


def rate(happened: Bools, looks: Looks = Looks.ONE) -> Interval | TooFew:
    """Share that is true, of requests in time order.

    Wilson's interval (J. Am. Stat. Assoc. 22, 1927) for the effective number of requests, as for surveys in clusters
    (Korn, Graubard, "Confidence intervals for proportions with small expected number of positive counts", Surv.
    Methodol. 24, 1998). Where all are alike no dependence can be seen, and every request counts.
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
    t2 = critical(looks, n, seen.waves) ** 2
    centre = (share + t2 / (2 * effective)) / (1 + t2 / effective)
    reach = sqrt(t2 * (share * (1 - share) / effective + t2 / (4 * effective**2))) / (1 + t2 / effective)
    low = 0.0 if share == 0 else max(0.0, centre - reach)
    high = 1.0 if share == 1 else min(1.0, centre + reach)
    return Interval(share, low, high, looks, n, effective, seen.block)
