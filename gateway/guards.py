"""What becomes of a canary's step, by what was measured since it began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from evidence.document import Comparison, Measured
from gateway.routing import Canary, Progress


@dataclass(frozen=True)
class Hold:
    why: str


@dataclass(frozen=True)
class Promote:
    why: str


@dataclass(frozen=True)
class RollBack:
    why: str


Decision = Hold | Promote | RollBack


@dataclass(frozen=True)
class _Finding:
    """What one guard says. `broken`: beyond doubt; `against`: by the estimate, and chance may have made it; `unknown`:
    there is no interval, so that nothing is."""

    kind: Literal["kept", "broken", "against", "unknown"]
    why: str


def decide(policy: Canary, progress: Progress, comparison: Comparison, now: float) -> Decision:
    """Of a running canary. `comparison` is of `from` and `to`, in this order, since the step began. Of it only the
    bounds for any number of looks are used, since this is asked again and again.

    A guard that is broken ends the canary at once. It moves on when it was held for its time and each guard has an
    interval and an estimate within bounds; where one has not, it waits: too little evidence never moves it. What the
    comparison objects to is no matter: another device or precision is a part of the target that is tried, errors have
    a guard of their own, and the intervals allow for requests without a latency.
    """
    findings = [_latency(policy, comparison), _errors(policy, comparison), *_agreement(policy, comparison)]
    if broken := [each.why for each in findings if each.kind == "broken"]:
        return RollBack("; ".join(broken))
    waiting = [each.why for each in findings if each.kind != "kept"]
    end = progress.since + policy.hold_s
    if now < end:
        until = datetime.fromtimestamp(end, UTC)
        return Hold("; ".join([f"holding until {until:%Y-%m-%d %H:%M:%S} UTC", *waiting]))
    if waiting:
        return Hold("waiting: " + "; ".join(waiting))
    return Promote("; ".join(each.why for each in findings))


def _latency(policy: Canary, comparison: Comparison) -> _Finding:
    if policy.sample_rate:
        ratio, of_what, what = comparison.paired.ratio_any_looks, "at the median of pairs", "pairs"
    else:
        ratio, of_what, what = comparison.unpaired.ratio_any_looks, "at the median", "requests"
    if ratio.estimate is None or _open(ratio):
        return _unknown("latency", ratio, what)
    # The document's ratio is from/to, the guard's to/from.
    estimate = 1 / ratio.estimate
    low = 0.0 if ratio.high is None else 1 / ratio.high
    figures = f"{policy.to} takes {estimate:.3g} times as long as {policy.from_} {of_what}"
    if low > policy.guards.latency_ratio:
        return _Finding("broken", f"{figures} (at least {low:.3g}), more than {policy.guards.latency_ratio:g}")
    if estimate > policy.guards.latency_ratio:
        return _Finding("against", f"{figures}, more than {policy.guards.latency_ratio:g}, which may be chance")
    return _Finding("kept", figures)


def _errors(policy: Canary, comparison: Comparison) -> _Finding:
    start, end = (target.error_rate_any_looks for target in comparison.runtimes.values())
    if end.estimate is None or _open(end):
        return _unknown(f"error rate of {policy.to}", end, "requests")
    most = policy.guards.error_rate
    # What both targets fail is no fault of the new one's. Of a `from` that is hardly asked nothing is known: then the
    # guard alone decides.
    of_start = 0.0 if _open(start) else 1.0 if start.high is None else start.high
    figures = f"{policy.to} fails {end.estimate:.2%} of {end.n:,} requests"
    if end.low is not None and end.low > max(most, of_start):
        why = f"{figures} (at least {end.low:.2%}), more than {most:.4g}"
        return _Finding("broken", why if _open(start) else f"{why}, and {policy.from_} at most {of_start:.2%}")
    if end.estimate > most:
        return _Finding(
            "against", f"{figures}, more than {most:.4g}, which may be chance or {policy.from_}'s fault, too"
        )
    return _Finding("kept", figures)


def _agreement(policy: Canary, comparison: Comparison) -> Sequence[_Finding]:
    least, share = policy.guards.agreement, comparison.agreement.share_any_looks
    if least is None:
        return []
    if share.estimate is None or _open(share):
        return [_unknown("agreement", share, "pictures")]
    figures = f"they agree on {share.estimate:.2%} of {comparison.agreement.images:,} images"
    if share.high is not None and share.high < least:
        return [_Finding("broken", f"{figures} (at most {share.high:.2%}), less than {least:.4g}")]
    if share.estimate < least:
        return [_Finding("against", f"{figures}, less than {least:.4g}, which may be chance")]
    return [_Finding("kept", figures)]


def _open(measured: Measured) -> bool:
    """Whether there are too few effective samples for an interval."""
    return measured.low is None and measured.high is None


def _unknown(guard: str, measured: Measured, what: str) -> _Finding:
    more = "more" if measured.needed is None else f"about {max(1, measured.needed - measured.n):,} more"
    return _Finding("unknown", f"too few effective samples for the {guard}: {more} {what}")
