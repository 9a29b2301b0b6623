"""A verdict in the one sentence that a person wants."""

from __future__ import annotations

from math import floor, inf, log10

from comparison.interval import Interval, TooFew
from comparison.verdict import Finding, Verdict


def sentence(verdict: Verdict) -> str:
    if verdict.finding is Finding.DO_NOT_COMPARE:
        return f"do not compare: {', '.join(verdict.objections)}"
    if verdict.finding is Finding.FASTER:
        return ", ".join(filter(None, (_faster(verdict), _agreement(verdict))))
    if verdict.finding is Finding.TOO_FEW:
        result = verdict.ratio
        counted = f"{result.n:,} {_counted(verdict)} count as {result.effective_n:,.0f} independent ones"
        return f"too few effective samples: {counted}; about {_about(verdict.more_pairs or 1)} more are needed"
    if verdict.finding is Finding.ALIKE:
        return ", ".join(filter(None, ("no difference of 5 % or more" + _range(verdict), _agreement(verdict))))
    if verdict.more_pairs is None:
        return "no difference shown yet" + _range(verdict)
    return f"no difference shown yet: about {_about(verdict.more_pairs)} more {_counted(verdict)} would show 5 %"


def _counted(verdict: Verdict) -> str:
    if verdict.spread is None:
        return "pairs"
    return f"requests of {verdict.a if verdict.spread[0] <= verdict.spread[1] else verdict.b}"


def _faster(verdict: Verdict) -> str:
    if verdict.median_s is None or not isinstance(verdict.ratio, Interval):
        raise ValueError("a target cannot be faster without latencies of both")
    swap = verdict.faster == verdict.b
    quick, slow = (verdict.median_s[i] * 1e3 for i in ((1, 0) if swap else (0, 1)))
    change, low, high = _changes(verdict.ratio, swap)
    over = "pairs" if verdict.spread is None else "requests spread over both"
    return (
        f"{verdict.faster} is faster: {quick:.3g} ms against {slow:.3g} at the median of {over} "
        f"({change} %, 95 % interval {low} … {high}{_tail(verdict, swap)})"
    )


def _tail(verdict: Verdict, swap: bool) -> str:
    match verdict.quantile_ratios.get(0.95):
        case Interval() as ratio:
            return f"; p95 {_changes(ratio, swap)[0]} %"
        case TooFew():
            return "; p95: too few effective samples"
    return ""


def _range(verdict: Verdict) -> str:
    if not isinstance(verdict.ratio_any_looks, Interval):
        return ""
    _, low, high = _changes(verdict.ratio_any_looks, swap=False)
    return f": {verdict.a} takes {low} … {high} % as against {verdict.b} (95 % at any number of looks)"


def _agreement(verdict: Verdict) -> str:
    match verdict.agreement:
        case Interval(estimate=share, n=n) | TooFew(estimate=float(share), n=n):
            return (
                f"they agree on {100 * share:.3g} % of {n:,} images"
                if share < 1
                else f"they agree on all of {n:,} images"
            )
    return ""


def _changes(ratio: Interval, swap: bool) -> tuple[str, str, str]:
    """In percent: estimate and both ends, the lower first; of b over a where swapped."""
    ends = (ratio.low, ratio.high)
    estimate, low, high = (
        (_inverse(ratio.estimate), _inverse(ends[1]), _inverse(ends[0])) if swap else (ratio.estimate, *ends)
    )
    digits = 0 if min(abs(estimate - 1), high - low) >= 0.02 else 1
    return _percent(estimate, digits), _percent(low, digits), _percent(high, digits)


def _inverse(ratio: float) -> float:
    return 1 / ratio if ratio else inf


def _percent(ratio: float, digits: int) -> str:
    return f"{100 * (ratio - 1):+.{digits}f}".replace("-", "−")


def _about(n: int) -> str:
    """To two digits, upwards."""
    step = 10 ** max(0, floor(log10(n)) - 1)
    return f"{-(-n // step) * step:,}"
