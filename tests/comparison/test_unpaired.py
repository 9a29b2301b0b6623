"""Requests that were spread over two targets by chance, and what the verdict says of them."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from scipy import stats

from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Observations, Outcome, Outcomes
from comparison.process import Process
from comparison.sentence import sentence
from comparison.unpaired import Arrivals, stratified_log_ratio
from comparison.verdict import Finding, Objection, verdict_unpaired


def _spread(process: Process, n: int, share: float = 0.5, seed: int = 1) -> tuple[Arrivals, Arrivals]:
    rng = np.random.default_rng(seed)
    a, b = process.draw(n, rng)
    times, mine = np.sort(rng.uniform(0, n / 10, n)), rng.random(n) < share
    return Arrivals(times[mine], Observations.answered(a[mine])), Arrivals(
        times[~mine], Observations.answered(b[~mine])
    )


def _interval(result: Interval | TooFew) -> Interval:
    assert isinstance(result, Interval), result
    return result


def _with(side: Arrivals, outcome: Outcome, share: float) -> Arrivals:
    codes: Outcomes = side.seen.outcome.copy()
    codes[:: round(1 / share)] = outcome
    return Arrivals(side.times, Observations(side.seen.seconds, codes))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98], ids=str)
def test_a_planted_difference_is_found_whatever_the_shares(share: float) -> None:
    n = 4_000 if share == 0.5 else 60_000
    a, b = _spread(Process(0.5, slowdown=1.2), n, share)
    result = stratified_log_ratio(a, b)
    ratio = _interval(result.ratio)
    assert ratio.low < log(1.2) < ratio.high
    assert ratio.low > 0
    assert result.n == (len(a.times), len(b.times))
    assert 0.9 * min(result.n) < ratio.n <= min(result.n)  # not those of a stratum without the other side
    assert result.strata == pytest.approx(ratio.n / 5, abs=2)


def test_the_ratio_reads_the_same_from_either_side() -> None:
    a, b = _spread(Process(0.5, slowdown=1.1), 10_000, 0.3)
    there, back = (_interval(stratified_log_ratio(*sides).ratio) for sides in ((a, b), (b, a)))
    assert (there.low, there.estimate, there.high) == pytest.approx((-back.high, -back.estimate, -back.low), abs=1e-9)


def test_shares_that_change_while_the_traffic_drifts_do_not_fool_it() -> None:
    rng = np.random.default_rng(1)
    a, b = Process(0.0, drift=0.0).draw(8_000, rng)
    busy = np.linspace(1, 3, 8_000)
    mine = rng.random(8_000) < np.linspace(0.2, 0.8, 8_000)
    times = np.arange(8_000.0)
    result = stratified_log_ratio(
        Arrivals(times[mine], Observations.answered((a * busy)[mine])),
        Arrivals(times[~mine], Observations.answered((b * busy)[~mine])),
    )
    assert result.median_s is not None
    assert result.median_s[0] > 1.2 * result.median_s[1]
    assert not _interval(result.ratio).excludes(0)


def test_the_order_in_which_requests_are_given_does_not_matter() -> None:
    a, b = _spread(Process(0.5), 2_000)
    order = np.random.default_rng(2).permutation(len(a.times))
    assert stratified_log_ratio(
        Arrivals(a.times[order], Observations.answered(a.seen.seconds[order])), b
    ) == stratified_log_ratio(a, b)


@pytest.mark.parametrize("side", [0, 1], ids=["rarer", "other"])
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT], ids=str)
def test_what_was_not_measured_is_not_left_out(side: int, outcome: Outcome) -> None:
    a, b = _spread(Process(0.0), 6_000, 0.3)
    plain = _interval(stratified_log_ratio(a, b).ratio)
    a, b = (_with(a, outcome, 0.1), b) if side == 0 else (a, _with(b, outcome, 0.1))
    changed = _interval(stratified_log_ratio(a, b).ratio)
    if outcome is Outcome.FAILED:
        assert changed.low < plain.low
        assert changed.high > plain.high
    else:
        assert (changed.estimate > plain.estimate) == (side == 0)


def test_no_requests_of_a_side_or_none_at_the_same_time_are_too_few() -> None:
    a, _ = _spread(Process(0.0), 2_000)
    nothing = Arrivals(np.empty(0), Observations.answered(np.empty(0)))
    for b in (nothing, Arrivals(a.times + 1e6, a.seen)):
        for sides in ((a, b), (b, a)):
            result = stratified_log_ratio(*sides)
            assert isinstance(result.ratio, TooFew)
            assert result.strata == 0
    assert isinstance(stratified_log_ratio(nothing, nothing).ratio, TooFew)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="one of each"):
        Arrivals(np.zeros(1), Observations.answered(np.ones(2)))
    with pytest.raises(ValueError, match="leave such an inference out"):
        Arrivals(np.array([np.nan]), Observations.answered(np.ones(1)))


def test_seeded_intervals_cover_and_a_difference_that_is_not_there_is_rarely_claimed() -> None:
    runs, claims, ever, covered = 150, 0, 0, 0
    for seed in range(runs):
        a, b = _spread(Process(0.5), 2_000, seed=seed)
        claims += _interval(stratified_log_ratio(a, b).ratio).excludes(0)
        ever += _interval(stratified_log_ratio(a, b, Looks.ANY).ratio).excludes(0)
        slow = Arrivals(a.times, Observations.answered(a.seen.seconds * 1.05))
        covered += not _interval(stratified_log_ratio(slow, b).ratio).excludes(log(1.05))
    least = 1e-4  # chance that a sound method fails here, for other seeds
    assert claims <= stats.binom.isf(least, runs, 0.05)
    assert ever <= stats.binom.isf(least, runs, 0.02)
    assert covered >= stats.binom.ppf(least, runs, 0.95)


def test_the_sentence_says_that_requests_were_spread_over_both() -> None:
    result = verdict_unpaired("torch", "tf", *_spread(Process(0.0, slowdown=1.3), 4_000))
    assert (result.finding, result.faster, result.pairs) == (Finding.FASTER, "tf", 0)
    said = sentence(result)
    assert said.startswith("tf is faster: 1")
    assert " at the median of requests spread over both (−2" in said
    assert said.endswith(")")
    assert result.spread is not None
    assert sum(result.spread) == 4_000


def test_the_sentence_counts_requests_of_the_rarer_side() -> None:
    few = verdict_unpaired("torch", "tf", *_spread(Process(0.0), 3_000, 0.05))
    assert few.finding is Finding.TOO_FEW
    assert sentence(few).startswith(f"too few effective samples: {few.ratio.n} requests of torch count as ")
    more = verdict_unpaired("torch", "tf", *_spread(Process(0.0), 1_500, 0.7))
    assert more.finding is Finding.NOT_YET
    assert sentence(more).endswith(" more requests of tf would show 5 %")


@pytest.mark.parametrize(
    ("outcome", "share", "objections"),
    [
        (Outcome.FAILED, 0.005, ()),
        (Outcome.FAILED, 0.02, (Objection.ERRORS,)),
        (Outcome.DROPPED, 0.1, (Objection.UNMEASURED,)),
    ],
    ids=lambda value: str(value),
)
def test_what_was_not_measured_forbids_a_verdict_above_a_share(
    outcome: Outcome, share: float, objections: tuple[Objection, ...]
) -> None:
    a, b = _spread(Process(0.0, slowdown=1.3), 4_000)
    result = verdict_unpaired("torch", "tf", _with(a, outcome, share), b)
    assert result.objections == objections
    assert (result.finding is Finding.DO_NOT_COMPARE) == bool(objections)
