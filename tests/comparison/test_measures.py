"""Rates, ratios and the simulated process; small seeded simulations of them."""

from __future__ import annotations

import subprocess
import sys
from math import log

import numpy as np
import pytest
from scipy import stats

from comparison.cells import cells, wrong_labels
from comparison.interval import Interval, Looks, TooFew, any_looks
from comparison.observations import Observations, Pairs
from comparison.planning import pairs_that_show
from comparison.process import Process
from comparison.rate import rate
from comparison.ratio import latency_quantile, paired_difference, paired_log_ratio, quantile_log_ratio
from comparison.simulate import Tally, batch, table


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def _pairs(process: Process, n: int, seed: int = 1) -> Pairs:
    return Pairs(*map(Observations.answered, process.draw(n, _rng(seed))))


def _interval(result: Interval | TooFew) -> Interval:
    assert isinstance(result, Interval), result
    return result


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


def test_one_early_row_of_wrong_labels_is_no_proof_of_many() -> None:
    happened = np.zeros(400, dtype=bool)
    happened[100:110] = True
    assert _interval(rate(happened, Looks.ANY)).low < 0.0005
    assert _interval(rate(~happened, Looks.ANY)).high > 0.9995


def test_the_bound_of_a_share_for_any_number_of_looks_is_the_wider_one() -> None:
    happened = _rng().random(5_000) < 0.01
    once, ever = (_interval(rate(happened, looks)) for looks in Looks)
    exact = stats.binomtest(int(happened.sum()), 5_000).proportion_ci(1 - 2 * stats.norm.sf(any_looks(5_000)), "exact")
    assert ever.low < once.low < once.high < ever.high
    assert (ever.low, ever.high) == pytest.approx((exact.low, exact.high), rel=0.2)


@pytest.mark.parametrize("length", [1, 10], ids=["single", "in tens"])
def test_an_agreement_looked_at_again_and_again_is_rarely_called_lower_than_it_is(length: int) -> None:
    runs, rng = 150, _rng(4)
    alarms = 0
    for _ in range(runs):
        agreed = ~wrong_labels(3_000, 0.01, length, rng)
        looks = (rate(agreed[:n], Looks.ANY) for n in range(120, 3_001, 120))
        alarms += any(isinstance(look, Interval) and look.high < 0.99 for look in looks)
    assert alarms <= stats.binom.isf(1e-4, runs, 0.05)


def test_a_planted_20_ms_is_reported_within_2_ms_after_500_pairs() -> None:
    process = Process(0.5, typical_s=0.1)
    a, b = process.draw(500, _rng())
    result = _interval(paired_difference(Pairs(Observations.answered(a + 0.02), Observations.answered(b))))
    assert result.low < 0.02 < result.high
    quiet = Process(0.5, sigma=0.05, typical_s=0.05)
    a, b = quiet.draw(500, _rng())
    result = _interval(paired_difference(Pairs(Observations.answered(a + 0.02), Observations.answered(b))))
    assert result.estimate == pytest.approx(0.02, abs=0.002)


def test_a_simulated_batch_is_the_same_each_time() -> None:
    first, again, other = (batch(0, number, 5) for number in (3, 3, 4))
    assert first == again
    assert [list(answers) for answers in first] == [list(answers) for answers in other]


def test_a_table_of_the_simulation_has_a_column_for_each_dependence() -> None:
    free, tied = (cell for cell in cells() if cell.title == "A/A" and cell.n == 2_000 and cell.dependence != "0.5")
    results = [(free, {"asked": Tally(1, 4, 4)}), (tied, {"asked": Tally(0, 1, 4), "moreover": Tally(0, 0, 4)})]
    assert list(table("claim", results)) == [
        "| claim | n | yes, if | 0.0 | 0.95 | runs |",
        "|---|---|---|---|---|---|",
        "| A/A | 2,000 | asked | 25.0 % | 0.0 % (too few: 75.0 %) | 4 |",
        "| A/A | 2,000 | moreover |  | too few | 4 |",
    ]


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
    wrong = [wrong_labels(5_000, 0.01, length, rng) for _ in range(runs)]
    covered = sum(not _interval(rate(~labels)).excludes(0.99) for labels in wrong)
    assert covered >= stats.binom.ppf(1e-4, runs, 0.93 if length == 1 else 0.9)


def test_the_gateway_imports_neither_the_statistics_nor_scipy() -> None:
    code = "import sys, gateway.app; print(sorted({'comparison', 'scipy'} & {m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
