"""How long each target takes, as seen lately."""

from __future__ import annotations

import pytest

from gateway.latencies import CLAIM_S, STALE_S, Latencies
from gateway.runtimes.base import ModelRef
from tests.support.clock import Clock

ONE, TWO = ModelRef("digits", 1), ModelRef("digits", 2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def latencies(clock: Clock) -> Latencies:
    return Latencies(clock)


def test_of_inferences_at_one_moment_the_mean_is_expected_for_each_target_by_itself(latencies: Latencies) -> None:
    for seconds in (0.1, 0.2, 0.6):
        latencies.answered("torch", ONE, seconds)
    latencies.answered("tf", ONE, 0.05)
    assert latencies.expected_s("torch", ONE) == pytest.approx(0.3)
    assert latencies.expected_s("tf", ONE) == pytest.approx(0.05)
    assert latencies.expected_s("torch", TWO) is None


def test_what_is_older_counts_less(latencies: Latencies, clock: Clock) -> None:
    latencies.answered("torch", ONE, 1.0)
    clock.now_s += 10
    latencies.answered("torch", ONE, 0.1)
    assert latencies.expected_s("torch", ONE) == pytest.approx((1 * 0.3679 + 0.1) / 1.3679, rel=0.001)
    for _ in range(60):
        clock.now_s += 1
        latencies.answered("torch", ONE, 0.1)
    assert latencies.expected_s("torch", ONE) == pytest.approx(0.1, rel=0.01)


def test_a_failure_counts_as_the_whole_patience_and_never_makes_a_target_faster(latencies: Latencies) -> None:
    latencies.failed("torch", ONE, 10.0)
    assert latencies.expected_s("torch", ONE) == pytest.approx(10)
    latencies.answered("tf", ONE, 0.4)
    latencies.failed("tf", ONE, 0.05)
    assert latencies.expected_s("tf", ONE) == pytest.approx(0.4)


def test_what_was_not_measured_for_long_is_not_known_and_due_to_one_after_the_other(
    latencies: Latencies, clock: Clock
) -> None:
    latencies.answered("torch", ONE, 0.1)
    assert not latencies.due("torch", ONE)
    clock.now_s += STALE_S + 0.1
    assert latencies.expected_s("torch", ONE) is None
    assert [latencies.due("torch", ONE) for _ in range(3)] == [True, False, False]
    clock.now_s += CLAIM_S + 0.1  # whoever was sent has not come back
    assert [latencies.due("torch", ONE) for _ in range(2)] == [True, False]
    latencies.answered("torch", ONE, 0.1)
    assert not latencies.due("torch", ONE)
    assert latencies.expected_s("torch", ONE) == pytest.approx(0.1)


def test_a_target_that_was_never_measured_is_due(latencies: Latencies) -> None:
    assert [latencies.due("tf", TWO) for _ in range(2)] == [True, False]


def test_who_was_overtaken_is_slower_than_expected_or_says_nothing(latencies: Latencies) -> None:
    latencies.overtaken("torch", ONE, 0.5)
    assert latencies.expected_s("torch", ONE) is None  # a lower bound alone is no estimate
    latencies.answered("torch", ONE, 0.1)
    latencies.overtaken("torch", ONE, 0.05)
    assert latencies.expected_s("torch", ONE) == pytest.approx(0.1)
    latencies.overtaken("torch", ONE, 0.3)
    assert latencies.expected_s("torch", ONE) == pytest.approx(0.2)


def test_quantiles_are_of_answers_and_of_what_had_not_answered_in_its_time(latencies: Latencies) -> None:
    for _ in range(20):
        latencies.answered("torch", ONE, 0.1)
        latencies.failed("torch", ONE, 10.0)  # at once: it says nothing of how long an answer takes
    assert latencies.quantile_s("torch", ONE, 0.95) == pytest.approx(0.1, rel=0.2)
    for _ in range(40):
        latencies.answered("torch", ONE, 3.0)
        latencies.failed("torch", ONE, 1.0, waited_s=1.0)
    assert latencies.quantile_s("torch", ONE, 0.5) == pytest.approx(3.0, rel=0.2)
    assert latencies.quantile_s("tf", ONE, 0.5) is None


def test_for_a_target_that_has_not_answered_for_long_one_at_a_time_waits_longer(
    latencies: Latencies, clock: Clock
) -> None:
    latencies.answered("torch", ONE, 0.1)
    assert not latencies.worth_patience("torch", ONE)
    clock.now_s += STALE_S + 0.1
    latencies.failed("torch", ONE, 1.0, waited_s=1.0)
    assert [latencies.worth_patience("torch", ONE) for _ in range(3)] == [True, False, False]
    clock.now_s += CLAIM_S + 0.1
    assert [latencies.worth_patience("torch", ONE) for _ in range(2)] == [True, False]
    latencies.answered("torch", ONE, 0.1)
    assert not latencies.worth_patience("torch", ONE)
