"""The formulas, against scipy, closed forms and small seeded simulations."""

from __future__ import annotations

import subprocess
import sys
from math import log, sqrt

import numpy as np
import pytest
from scipy import stats

from comparison.dependence import DRIFT_DEGREE, autocorrelation_time, dependence, lag_one_time, long_run_correlation
from comparison.interval import TIGHTEST_AT, Interval, Looks, TooFew, any_looks, critical
from comparison.observations import Observations, Outcome, Pairs
from comparison.planning import pairs_that_show
from comparison.process import Process
from comparison.quantile import Floats, quantile
from comparison.rate import rate
from comparison.ratio import latency_quantile, paired_log_ratio, quantile_log_ratio


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def _memory(n: int, autocorrelation: float, seed: int = 1) -> Floats:
    return Process(autocorrelation)._memory(n, _rng(seed))


def _pairs(process: Process, n: int, seed: int = 1) -> Pairs:
    return Pairs(*map(Observations.answered, process.draw(n, _rng(seed))))


def _interval(result: Interval | TooFew) -> Interval:
    assert isinstance(result, Interval), result
    return result


@pytest.mark.parametrize("autocorrelation", [0.0, 0.5, 0.9], ids=str)
def test_long_run_variance_is_that_of_the_first_order_process(autocorrelation: float) -> None:
    truth = (1 + autocorrelation) / (1 - autocorrelation)
    series = _memory(200_000, autocorrelation)
    assert dependence(series).long_run_variance == pytest.approx(truth, rel=0.15)
    assert autocorrelation_time(series - series.mean()) == pytest.approx(truth, rel=0.15)
    assert lag_one_time(series) == pytest.approx(truth, rel=0.05)


def test_a_slow_drift_counts_as_chance_only_where_it_is_not_taken_out() -> None:
    series = _memory(20_000, 0.0) + 2 * np.sin(np.linspace(0, 2 * np.pi, 20_000))
    assert dependence(series, drift_degree=DRIFT_DEGREE).long_run_variance == pytest.approx(1, rel=0.3)
    assert dependence(series).long_run_variance > 50


def test_a_series_varies_with_itself_and_against_its_opposite() -> None:
    series = _memory(2_000, 0.5)
    seen = dependence(series)
    assert long_run_correlation(seen, dependence(series)) == pytest.approx(1)
    assert long_run_correlation(seen, dependence(-series)) == pytest.approx(-1)
    assert long_run_correlation(seen, dependence(np.ones(2_000))) == 0


def test_one_look_takes_student_s_quantile() -> None:
    assert critical(Looks.ONE, 2_000, 8) == pytest.approx(2.306, abs=1e-3)  # from printed tables


def test_the_bound_for_any_number_of_looks_is_the_paper_s() -> None:
    spent = -2 * log(0.05) + log(-2 * log(0.05)) + 1
    assert any_looks(TIGHTEST_AT) == pytest.approx(sqrt(2 * (spent + 1) / spent * log(sqrt(spent + 1) / 0.05)))
    assert critical(Looks.ANY, TIGHTEST_AT, 10_000) == pytest.approx(any_looks(TIGHTEST_AT), rel=1e-2)
    assert any_looks(TIGHTEST_AT) < min(any_looks(TIGHTEST_AT // 10), any_looks(TIGHTEST_AT * 10))


def test_the_median_of_independent_values_has_about_scipy_s_exact_interval() -> None:
    values = _rng().lognormal(size=2_001)
    mine = _interval(quantile(values, 0.5).result)
    exact = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert mine.estimate == pytest.approx(np.median(values))
    assert mine.high - mine.low == pytest.approx(exact.high - exact.low, rel=0.4)
    assert mine.effective_n == pytest.approx(2_001, rel=0.5)


def test_memory_widens_an_interval_and_lowers_the_effective_samples() -> None:
    free, tied = (_interval(quantile(_memory(10_000, rho), 0.5).result) for rho in (0.0, 0.9))
    assert tied.high - tied.low > 2 * (free.high - free.low)
    assert tied.effective_n < free.effective_n / 4
    assert tied.block > free.block


def test_a_short_series_with_a_long_memory_gets_no_interval() -> None:
    result = quantile(_memory(500, 0.97), 0.5).result
    assert isinstance(result, TooFew)
    assert result.effective_n < 100
    assert result.needed > 500


def test_a_tail_needs_more_than_a_median() -> None:
    values = _memory(5_000, 0.0)
    assert isinstance(quantile(values, 0.5).result, Interval)
    tail = quantile(values, 0.95).result
    assert isinstance(tail, TooFew)
    assert tail.needed == 20_000


@pytest.mark.parametrize("n", [0, 1, 2, 7], ids=str)
def test_a_handful_is_too_few(n: int) -> None:
    values = np.linspace(1, 2, n)
    for drift_degree in (0, DRIFT_DEGREE):
        result = quantile(values, 0.5, drift_degree=drift_degree).result
        assert isinstance(result, TooFew)
        assert (result.estimate is None) == (n == 0)
    assert isinstance(rate(np.ones(n, dtype=bool)), TooFew)
    pairs = Pairs(Observations.answered(values), Observations.answered(values))
    assert isinstance(paired_log_ratio(pairs), TooFew)
    assert isinstance(quantile_log_ratio(pairs, 0.5), TooFew)


@pytest.mark.parametrize("drift_degree", [0, DRIFT_DEGREE], ids=str)
def test_constant_values_are_known_exactly(drift_degree: int) -> None:
    result = _interval(quantile(np.full(1_000, 3.0), 0.5, drift_degree=drift_degree).result)
    assert (result.low, result.estimate, result.high) == (3.0, 3.0, 3.0)
    assert result.effective_n == 1_000


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        quantile(np.array([1.0, np.nan]), 0.5)
    with pytest.raises(ValueError, match="NaN"):
        Observations.answered(np.array([1.0, np.nan]))


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.inf], ids=str)
def test_what_is_no_latency_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="outcome other than OK"):
        Observations.answered(np.array([seconds]))


def test_unequal_pairs_and_unknown_outcomes_are_refused() -> None:
    one, two = (Observations.answered(np.ones(n)) for n in (1, 2))
    with pytest.raises(ValueError, match="both of every pair"):
        Pairs(one, two)
    with pytest.raises(ValueError, match="Outcome's codes"):
        Observations(np.ones(1), np.full(1, 9, dtype=np.int8))
    with pytest.raises(ValueError, match="one of each"):
        Observations(np.ones(2), np.zeros(1, dtype=np.int8))


def test_time_outs_are_slower_than_all_and_the_rest_is_unknown() -> None:
    outcome = np.array([Outcome.OK, Outcome.TIMED_OUT, Outcome.FAILED, Outcome.DROPPED], dtype=np.int8)
    side = Observations(np.array([0.1, np.nan, np.nan, np.nan]), outcome)
    seconds, unknown = side.ordered()
    assert seconds.tolist() == [0.1, np.inf]
    assert unknown == 1  # a dropped one was never sent
    assert side.errors.tolist() == [False, True, True]
    ratios, unknown = Pairs(side, Observations.answered(np.full(4, 0.2))).log_ratios()
    assert ratios == pytest.approx([log(0.5), np.inf])
    assert unknown == 2


def test_unknown_values_widen_an_interval_to_both_sides() -> None:
    values = _memory(2_000, 0.0)
    plain, censored = (_interval(quantile(values, 0.5, unknown=u).result) for u in (0, 60))
    assert censored.low < plain.low
    assert censored.high > plain.high
    everywhere = _interval(quantile(values, 0.5, unknown=2_000).result)
    assert (everywhere.low, everywhere.high) == (-np.inf, np.inf)


def test_a_quantile_among_time_outs_is_beyond_the_deadline() -> None:
    outcome = np.zeros(1_000, dtype=np.int8)
    outcome[::2] = Outcome.TIMED_OUT
    outcome[::5] = Outcome.TIMED_OUT
    result = latency_quantile(Observations(np.ones(1_000), outcome), 0.5)
    assert result.estimate == np.inf


def test_a_rate_of_independent_requests_is_about_wilson_s() -> None:
    happened = _rng().random(14_302) < 0.01
    mine = _interval(rate(happened))
    wilson = stats.binomtest(int(happened.sum()), len(happened)).proportion_ci(method="wilson")
    assert mine.low == pytest.approx(wilson.low, rel=0.1)
    assert mine.high == pytest.approx(wilson.high, rel=0.1)
    assert mine.low < 0.01 < mine.high


@pytest.mark.parametrize("value", [False, True], ids=["none", "all"])
def test_a_rate_of_0_or_1_has_an_interval_of_one_side(value: bool) -> None:
    result = _interval(rate(np.full(1_000, value)))
    wilson = stats.binomtest(1_000 * value, 1_000).proportion_ci(method="wilson")
    assert (result.low, result.high) == pytest.approx((wilson.low, wilson.high), abs=1e-3)
    assert (result.high if value else result.low) == float(value)


def test_errors_in_bursts_make_a_rate_less_certain() -> None:
    bursts = np.repeat(_rng().random(500) < 0.05, 20)
    free, tied = _interval(rate(_rng(2).permutation(bursts))), _interval(rate(bursts))
    assert tied.high - tied.low > 3 * (free.high - free.low)
    assert tied.effective_n < free.effective_n / 5


def test_a_target_against_itself_has_a_ratio_of_one() -> None:
    pairs = _pairs(Process(0.5), 2_000)
    itself, apart = (_interval(quantile_log_ratio(p, 0.5)) for p in (Pairs(pairs.a, pairs.a), pairs))
    assert itself.estimate == 0
    assert itself.low <= 0 <= itself.high
    assert itself.high - itself.low < (apart.high - apart.low) / 2


def test_the_ratio_of_pairs_reads_the_same_from_either_side() -> None:
    pairs = _pairs(Process(0.5, slowdown=1.1), 2_000)
    there, back = (_interval(paired_log_ratio(p)) for p in (pairs, Pairs(pairs.b, pairs.a)))
    assert (there.low, there.estimate, there.high) == pytest.approx((-back.high, -back.estimate, -back.low), abs=1e-9)


def test_bursts_of_one_target_do_not_move_the_median_of_pairs() -> None:
    pairs = _pairs(Process(0.0, burst_share=0.0), 2_000)
    late = pairs.a.seconds.copy()
    late[700:720] *= 10
    calm, burst = (
        _interval(paired_log_ratio(Pairs(Observations.answered(a), pairs.b))) for a in (pairs.a.seconds, late)
    )
    assert burst.estimate == pytest.approx(calm.estimate, abs=0.01)


def test_more_pairs_are_needed_for_less_difference() -> None:
    once = _interval(paired_log_ratio(_pairs(Process(0.5), 2_000)))
    ten, five = (pairs_that_show(difference, once) for difference in (log(1.1), log(1.05)))
    assert 2 * ten < five < 8 * ten
    assert 1_000 < five < 6_000


def test_the_process_has_the_quantiles_that_it_says() -> None:
    process = Process(0.5, slowdown=1.05)
    seconds, _ = process.draw(1_000_000, _rng())
    for p in (0.5, 0.95):
        assert np.quantile(seconds, p) == pytest.approx(process.quantile(p), rel=0.01)
    assert np.mean(seconds <= process.quantile(0.99)) == pytest.approx(0.99, abs=0.002)


def test_seeded_intervals_cover_and_claims_are_rare_and_right() -> None:
    runs, claims, found, wrong, covered = 200, 0, 0, 0, 0
    process = Process(0.5)
    median = process.quantile(0.5)
    rng = _rng(5)
    for _ in range(runs):
        a, b = map(Observations.answered, process.draw(2_000, rng))
        claims += _interval(paired_log_ratio(Pairs(a, b))).excludes(0)
        slow = _interval(paired_log_ratio(Pairs(Observations.answered(a.seconds * 1.05), b)))
        found += slow.low > 0
        wrong += slow.high < 0
        covered += not _interval(latency_quantile(a, 0.5)).excludes(median)
    least = 1e-4  # chance that a sound method fails here, for other seeds
    assert claims <= stats.binom.isf(least, runs, 0.05)
    assert found >= stats.binom.ppf(least, runs, 0.9)
    assert wrong == 0
    assert covered >= stats.binom.ppf(least, runs, 0.95)


@pytest.mark.parametrize("length", [1, 10], ids=["single", "in tens"])
def test_the_interval_of_an_agreement_contains_a_planted_wrong_label(length: int) -> None:
    runs, rng = 300, _rng(3)
    wrong = [np.repeat(rng.random(5_000 // length) < 0.01, length) for _ in range(runs)]
    covered = sum(not _interval(rate(~labels)).excludes(0.99) for labels in wrong)
    assert covered >= stats.binom.ppf(1e-4, runs, 0.93 if length == 1 else 0.9)


def test_the_gateway_imports_neither_the_statistics_nor_scipy() -> None:
    code = "import sys, gateway.app; print(sorted({'comparison', 'scipy'} & {m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
