"""Quantiles of the newest latencies, also where some were given up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gateway.histogram import DecayedHistogram

STEP = 2**0.25


def filled(draw: Callable[[], float], count: int = 400) -> DecayedHistogram:
    histogram = DecayedHistogram()
    for _ in range(count):
        histogram.answered(draw())
    return histogram


def test_of_fewer_answers_than_twenty_nothing_is_known() -> None:
    assert DecayedHistogram().quantile_s(0.5) is None
    assert filled(lambda: 0.01, 19).quantile_s(0.5) is None
    assert filled(lambda: 0.01, 20).quantile_s(0.5) is not None


@pytest.mark.parametrize("seconds", [0.0001, 0.0005, 0.003, 0.1, 7.0])
def test_a_quantile_is_at_most_one_step_too_high(seconds: float) -> None:
    known = filled(lambda: seconds).quantile_s(0.95)
    assert known is not None
    assert max(seconds, 0.0005) <= known * 1.000001 <= max(seconds, 0.0005) * STEP * 1.000001


def test_each_share_is_answered_within_its_quantile() -> None:
    chance = random.Random(5)  # noqa: S311
    histogram = filled(lambda: chance.uniform(0.0, 0.1))
    for share in (0.1, 0.5, 0.9, 0.95):
        assert histogram.quantile_s(share) == pytest.approx(share * 0.1, rel=0.35)


def test_what_is_new_counts_most() -> None:
    histogram = filled(lambda: 0.1)
    for _ in range(1000):
        histogram.answered(0.01)
    assert histogram.quantile_s(0.95) == pytest.approx(0.01, rel=0.2)


def test_hours_of_answers_are_no_different_from_minutes() -> None:
    assert filled(lambda: 0.01, 100_000).quantile_s(0.95) == pytest.approx(0.01, rel=0.2)


def test_the_slow_ones_that_are_given_up_do_not_make_it_look_faster() -> None:
    """Hedges that always win take all slow answers away. Without them, each 95 % would be 95 % of the last ones."""
    chance = random.Random(5)  # noqa: S311
    known, without = filled(lambda: chance.expovariate(100)), filled(lambda: chance.expovariate(100))
    for _ in range(5000):
        seconds, late = chance.expovariate(100), known.quantile_s(0.95)
        assert late is not None
        if seconds > late:
            known.given_up(late)
        else:
            known.answered(seconds)
        late = without.quantile_s(0.95)
        if late is not None and seconds <= late:
            without.answered(seconds)
    truth = 0.03  # -ln(0.05) / 100
    assert truth / 1.5 < (known.quantile_s(0.95) or 0) < truth * 1.6
    assert (without.quantile_s(0.95) or 1) < truth / 1.6


def test_while_nobody_answers_what_is_known_last_stays_and_does_not_grow() -> None:
    histogram = filled(lambda: 0.05)
    before = histogram.quantile_s(0.95)
    for _ in range(10_000):
        histogram.given_up(5.0)
    assert histogram.quantile_s(0.95) == before
    for _ in range(500):
        histogram.answered(0.2)
    assert histogram.quantile_s(0.95) == pytest.approx(0.2, rel=0.2)


def test_of_a_target_that_never_answered_nothing_is_known() -> None:
    histogram = DecayedHistogram()
    for _ in range(100):
        histogram.given_up(1.0)
    assert histogram.quantile_s(0.95) is None
