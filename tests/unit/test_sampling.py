"""Log lines of which there may be too many."""

from __future__ import annotations

from gateway.sampling import Sampling
from tests.support.clock import Clock


def test_the_first_of_each_second_are_written_and_say_how_many_were_not() -> None:
    clock = Clock()
    sampling = Sampling(2, clock)
    assert [sampling.left_out() for _ in range(5)] == [0, 0, None, None, None]
    clock.now_s += 1
    assert [sampling.left_out() for _ in range(3)] == [3, 0, None]
    clock.now_s += 60
    assert sampling.left_out() == 1
