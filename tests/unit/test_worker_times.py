"""What is made of what workers say of each picture."""

from __future__ import annotations

import pytest

from gateway.runtimes.base import Output
from gateway.worker_times import UNKNOWN, WorkerTimes


def test_of_several_pictures_it_is_the_longest_of_each_and_who_says_nothing_does_not_count() -> None:
    outputs = [Output({}, 4, 0.003, 0.010), Output({}, 8, 0.001, 0.020), Output({}), Output({}, None, None, 0.002)]
    assert WorkerTimes.of(outputs) == WorkerTimes(queue_s=0.003, inference_s=0.020, batch=8)


@pytest.mark.parametrize("outputs", [[], [Output({}), Output({})]], ids=["no picture", "nothing said"])
def test_where_nothing_is_said_nothing_is_known(outputs: list[Output]) -> None:
    assert WorkerTimes.of(outputs) == UNKNOWN


def test_a_part_of_which_nothing_is_known_has_no_milliseconds_and_none_is_not_zero() -> None:
    assert WorkerTimes(queue_s=0.0, inference_s=0.0123456).ms() == {"queue": 0.0, "inference": 12.346}
    assert WorkerTimes(inference_s=0.001, batch=3).ms() == {"inference": 1.0}
    assert UNKNOWN.ms() == {}
