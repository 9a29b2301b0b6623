"""Dependence, quantiles and bounds, against closed forms and scipy."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from scipy import stats

from comparison.dependence import DRIFT_DEGREE, autocorrelation_time, dependence, lag_one_time, long_run_correlation
from comparison.interval import (
    SPACED,
    TIGHTEST_AT,
    Interval,
    Looks,
    TooFew,
    any_looks,
    critical,
    next_spaced_look,
    spaced_look,
)
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


def test_spaced_looks_grow_by_about_a_quarter() -> None:
    looks = [spaced_look(n) for n in range(315, 100_000)]
    assert sorted(set(looks))[:9] == [315, 400, 500, 630, 800, 1_000, 1_250, 1_600, 2_000]
    assert [spaced_look(n) for n in (0, 1, 314, 315, 1_999, 2_000, 10**9)] == [0, 0, 0, 315, 1_600, 2_000, 10**9]
    assert [next_spaced_look(n) for n in (0, 315, 316, 2_000, 9_999)] == [315, 315, 400, 2_000, 10_000]
    assert all(next_spaced_look(look) == look for look in set(looks))


def test_the_spaced_looks_together_claim_a_difference_that_is_not_there_in_one_of_twenty_cases() -> None:
    looks = [315]
    while looks[-1] < 10**9:
        looks.append(next_spaced_look(looks[-1] + 1))
    bounds = [SPACED * any_looks(n) for n in looks]
    nodes, weights = np.polynomial.legendre.leggauss(121)
    # Density of the sum over the root of n, of the cases that have stayed within all bounds so far.
    at, inside = bounds[0] * nodes, bounds[0] * weights * stats.norm.pdf(bounds[0] * nodes)
    for before, n, bound in zip(looks, looks[1:], bounds[1:], strict=False):
        kept = sqrt(before / n)
        step = stats.norm.pdf((bound * nodes)[:, None], loc=kept * at, scale=sqrt(1 - before / n))
        at, inside = bound * nodes, bound * weights * (step @ inside)
    assert 0.049 < 1 - inside.sum() < 0.05


def test_between_spaced_looks_the_bound_stands_still() -> None:
    pairs = _pairs(Process(0.5), 2_499)
    seen = [
        _interval(
            paired_log_ratio(Pairs(*(Observations.answered(s.seconds[:n]) for s in (pairs.a, pairs.b))), Looks.ANY)
        )
        for n in (2_000, 2_100, 2_499)
    ]
    assert seen[0] == seen[1] == seen[2]
    assert seen[0].n == 2_000
    assert _interval(paired_log_ratio(pairs)).n == 2_499


def test_before_the_first_spaced_look_there_is_no_bound() -> None:
    pairs = _pairs(Process(0.0), 310)
    few = paired_log_ratio(pairs, Looks.ANY)
    assert isinstance(few, TooFew)
    assert (few.n, few.needed) == (310, 315)
    assert isinstance(paired_log_ratio(pairs), Interval)


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


def test_a_handful_that_is_its_own_mirror_image_shows_no_dependence() -> None:
    seen = dependence(np.array([0.0, 1.0, 1.0, 0.0]))
    assert seen.long_run_variance == 0
    assert seen.effective_n == 4


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
