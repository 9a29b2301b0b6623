from __future__ import annotations

from tandem.backoff import Backoff


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.5, longest_s=30.0, steady_s=60.0)
    assert [backoff.after(1.0) for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_steady_run_makes_the_next_pause_the_first_again() -> None:
    backoff = Backoff(first_s=0.5, longest_s=30.0, steady_s=60.0)
    pauses = [backoff.after(ran_s) for ran_s in (1.0, 1.0, 59.9, 60.0, 1.0)]
    assert pauses == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_ten_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff()
    assert {backoff.after(0.0) for _ in range(10_000)} == {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0}
