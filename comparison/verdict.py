"""Which of two targets to ship, as far as pairs, or requests spread over both, can tell."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Bools, Observations, Pairs
from comparison.planning import pairs_that_show
from comparison.rate import rate
from comparison.ratio import paired_difference, paired_log_ratio, quantile_log_ratio
from comparison.unpaired import Arrivals, stratified_log_ratio

CENSORED_LIMIT: Final = 0.05
"""Share of pairs without two latencies, or of a side's requests without one, above which there is no verdict."""
ERROR_LIMIT: Final = 0.01
WORTH_SHOWING: Final = 0.05


class Finding(StrEnum):
    FASTER = "faster"
    ALIKE = "alike"
    """A difference of 5 % or more is ruled out."""
    NOT_YET = "no difference shown yet"
    TOO_FEW = "too few effective samples"
    DO_NOT_COMPARE = "do not compare"


class Objection(StrEnum):
    """Why two targets must not be compared. The first three only the caller can know."""

    DEVICE = "device differs"
    PRECISION = "precision differs"
    COLD = "one side was cold"
    ERRORS = "an error rate over 1 %"
    CENSORED = "more than 5 % of pairs lack a latency"
    UNMEASURED = "more than 5 % of one side's requests lack a latency"


@dataclass(frozen=True)
class Verdict:
    a: str
    b: str
    finding: Finding
    faster: str | None
    """Claimed by the bound for any number of looks."""
    objections: tuple[Objection, ...]
    pairs: int
    """With both latencies."""
    median_s: tuple[float, float] | None
    """Of a and b, over these pairs, or these requests."""
    ratio: Interval | TooFew
    """The primary measure: median of a/b over pairs; a's median over b's within a stratum of time; one look."""
    ratio_any_looks: Interval | TooFew
    quantile_ratios: dict[float, Interval | TooFew]
    """By quantile: a's over b's; one look. None of them without pairs."""
    error_rates: tuple[Interval | TooFew, Interval | TooFew]
    agreement: Interval | TooFew | None
    more_pairs: int | None
    """About how many more would show 5 %, or allow an interval; None where the question does not arise.

    Without pairs: requests of the side that has fewer.
    """
    difference_s: Interval | TooFew | None = None
    """Median of a - b over pairs, in seconds; one look."""
    spread: tuple[int, int] | None = None
    """Requests of a and b answered, where it rests on requests that were spread over both, and not on pairs."""
    strata: int | None = None


def verdict(
    a: str, b: str, pairs: Pairs, agreed: Bools | None = None, objections: Collection[Objection] = ()
) -> Verdict:
    """Of the targets named a and b, from all pairs since a fixed start. Pure.

    `agreed`: in time order, for each picture that both answered. The claim holds however often this is called while
    pairs are added; it does not hold over windows that slide.
    """
    once, ever = (paired_log_ratio(pairs, looks) for looks in Looks)
    found = _objections(objections, pairs.a, pairs.b, censored=pairs.censored_share)
    complete = pairs.complete
    medians = _medians(pairs) if complete.any() else None
    finding, faster, more = _finding(once, ever, (a, b)) if not found else (Finding.DO_NOT_COMPARE, None, None)
    return Verdict(
        a,
        b,
        finding,
        faster,
        found,
        int(complete.sum()),
        medians,
        once.exp(),
        ever.exp(),
        {p: quantile_log_ratio(pairs, p).exp() for p in (0.5, 0.95, 0.99)},
        (rate(pairs.a.errors), rate(pairs.b.errors)),
        None if agreed is None else rate(agreed),
        more,
        paired_difference(pairs),
    )


def verdict_unpaired(a: str, b: str, x: Arrivals, y: Arrivals, objections: Collection[Objection] = ()) -> Verdict:
    """The same from requests that were spread over both by chance, x by a and y by b: no pairs, and no agreement."""
    once, ever = (stratified_log_ratio(x, y, looks) for looks in Looks)
    unmeasured = max(1 - float(side.seen.ok.mean()) if len(side.times) else 0.0 for side in (x, y))
    found = _objections(objections, x.seen, y.seen, unmeasured=unmeasured)
    finding, faster, more = (
        _finding(once.ratio, ever.ratio, (a, b)) if not found else (Finding.DO_NOT_COMPARE, None, None)
    )
    return Verdict(
        a,
        b,
        finding,
        faster,
        found,
        0,
        once.median_s,
        once.ratio.exp(),
        ever.ratio.exp(),
        {},
        (rate(x.in_order.errors), rate(y.in_order.errors)),
        None,
        more,
        spread=once.n,
        strata=once.strata,
    )


def _finding(
    once: Interval | TooFew, ever: Interval | TooFew, names: tuple[str, str]
) -> tuple[Finding, str | None, int | None]:
    if isinstance(once, TooFew):
        return Finding.TOO_FEW, None, max(1, once.needed - once.n)
    if isinstance(ever, TooFew):
        return Finding.TOO_FEW, None, max(1, ever.needed - ever.n)
    # The bound is that of the last spaced look: what later pairs have put in doubt is not claimed.
    if max(ever.high, once.high) < 0:
        return Finding.FASTER, names[0], None
    if min(ever.low, once.low) > 0:
        return Finding.FASTER, names[1], None
    margin = float(np.log1p(WORTH_SHOWING))
    if -margin < ever.low and ever.high < margin:
        return Finding.ALIKE, None, None
    more = pairs_that_show(margin, once) - once.n
    return Finding.NOT_YET, None, more if more > 0 else None


def _objections(
    known: Collection[Objection], a: Observations, b: Observations, *, censored: float = 0.0, unmeasured: float = 0.0
) -> tuple[Objection, ...]:
    found = set(known)
    if any(_error_rate(side) > ERROR_LIMIT for side in (a, b)):
        found.add(Objection.ERRORS)
    if censored > CENSORED_LIMIT:
        found.add(Objection.CENSORED)
    if unmeasured > CENSORED_LIMIT:
        found.add(Objection.UNMEASURED)
    return tuple(o for o in Objection if o in found)


def _error_rate(side: Observations) -> float:
    errors = side.errors
    return float(errors.mean()) if len(errors) else 0.0


def _medians(pairs: Pairs) -> tuple[float, float]:
    return float(np.median(pairs.a.seconds[pairs.complete])), float(np.median(pairs.b.seconds[pairs.complete]))
