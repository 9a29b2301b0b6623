"""When a circuit lets calls through."""

from __future__ import annotations

import asyncio

import pytest

from gateway.breaker import FAILURES, OPEN_S, Breaker
from gateway.errors import DeadlineExceeded, RuntimeFailed, RuntimeUnavailable
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, error: BaseException) -> None:
    with pytest.raises(type(error)), breaker.call():
        raise error


def open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        fail(breaker, RuntimeUnavailable("gone"))


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        fail(breaker, RuntimeUnavailable("gone"))
        assert breaker.state == "closed"
    fail(breaker, RuntimeUnavailable("gone"))
    assert breaker.state == "open"
    assert not breaker.allows


def test_an_answer_in_between_begins_the_count_anew(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        fail(breaker, RuntimeUnavailable("gone"))
    with breaker.call():
        pass
    fail(breaker, RuntimeUnavailable("gone"))
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    "error",
    [DeadlineExceeded("late"), asyncio.CancelledError(), RuntimeFailed("bad")],
    ids=["deadline", "cancelled", "failed on the picture"],
)
def test_what_says_nothing_about_the_worker_opens_nothing(breaker: Breaker, error: BaseException) -> None:
    for _ in range(3 * FAILURES):
        fail(breaker, error)
    assert breaker.state == "closed"


def test_half_open_lets_one_call_through_at_a_time(breaker: Breaker, clock: Clock) -> None:
    open_it(breaker)
    clock.now_s += OPEN_S
    assert breaker.state == "half_open"
    assert breaker.allows
    with breaker.call():
        assert not breaker.allows
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_it_again_at_once(breaker: Breaker, clock: Clock) -> None:
    open_it(breaker)
    clock.now_s += OPEN_S
    fail(breaker, RuntimeUnavailable("still gone"))
    assert breaker.state == "open"


def test_a_probe_that_is_cancelled_leaves_room_for_the_next_one(breaker: Breaker, clock: Clock) -> None:
    open_it(breaker)
    clock.now_s += OPEN_S
    fail(breaker, asyncio.CancelledError())
    assert breaker.state == "half_open"
    assert breaker.allows


def test_a_late_failure_of_a_call_from_before_does_not_end_a_probe(breaker: Breaker, clock: Clock) -> None:
    before = breaker.call()
    before.__enter__()
    open_it(breaker)
    clock.now_s += OPEN_S
    with breaker.call():
        error = RuntimeUnavailable("began before")
        assert not before.__exit__(type(error), error, None)
        assert not breaker.allows
    assert breaker.state == "closed"
