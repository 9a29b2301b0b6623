"""Dependence, quantiles and bounds, against closed forms and scipy."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from scipy import stats

from comparison.dependence import DRIFT_DEGREE, autocorrelation_time, dependence, lag_one_time, long_run_correlation
from comparison.interval import TIGHTEST_AT, Interval, Looks, TooFew, any_looks, critical
from comparison.observations import Observations, Pairs
from comparison.process import Process
from comparison.quantile import Floats, quantile
from comparison.rate import rate
from comparison.ratio import paired_log_ratio, quantile_log_ratio


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def _memory(n: int, autocorrelation: float, seed: int = 1) -> Floats:
    return Process(autocorrelation)._memory(n, _rng(seed))


def _interval(result: Interval | TooFew) -> Interval:
    assert isinstance(result, Interval), result
    return result


def _pairs(process: Process, n: int, seed: int = 1) -> Pairs:
    return Pairs(*map(Observations.answered, process.draw(n, _rng(seed))))


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


def test_unknown_values_widen_an_interval_to_both_sides() -> None:
    values = _memory(2_000, 0.0)
    plain, censored = (_interval(quantile(values, 0.5, unknown=u).result) for u in (0, 60))
    assert censored.low < plain.low
    assert censored.high > plain.high
    everywhere = _interval(quantile(values, 0.5, unknown=2_000).result)
    assert (everywhere.low, everywhere.high) == (-np.inf, np.inf)
