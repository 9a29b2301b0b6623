"""The small parts of the gateway, each by itself, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded
from gateway.stages import StageClock
from tests.support.clock import Clock

pytestmark = pytest.mark.anyio


def test_every_moment_belongs_to_one_stage_and_the_total_is_their_sum() -> None:
    now = Clock()
    clock = StageClock(now)
    now.now_s += 0.003
    clock.lap("receive")
    now.now_s += 0.005
    clock.lap("decode", of_it=("preprocess", 0.001))
    assert clock.timing_ms() == {"receive": 3.0, "decode": 4.0, "preprocess": 1.0, "total": 8.0}


def test_branches_of_a_clock_go_on_by_themselves() -> None:
    now = Clock()
    clock = StageClock(now)
    now.now_s += 0.001
    clock.lap("receive")
    one, other = clock.fork(), clock.fork()
    now.now_s += 0.002
    one.lap("rpc")
    now.now_s += 0.004
    other.lap("rpc")
    assert (one.timing_ms()["total"], other.timing_ms()["total"]) == (3.0, 7.0)
    assert clock.timing_ms() == {"receive": 1.0, "total": 1.0}


def test_what_is_skipped_belongs_to_no_stage_and_not_to_the_total() -> None:
    now = Clock()
    clock = StageClock(now)
    now.now_s += 0.001
    clock.lap("receive")
    now.now_s += 0.5
    clock.skip()
    now.now_s += 0.002
    clock.lap("rpc")
    assert clock.timing_ms() == {"receive": 1.0, "rpc": 2.0, "total": 3.0}
    assert clock.elapsed_s() == pytest.approx(0.003)


def test_a_deadline_counts_down_and_then_raises() -> None:
    now = Clock()
    deadline = Deadline.after_ms(1500, now)
    now.now_s += 1.0
    assert deadline.remaining_s() == pytest.approx(0.5)
    now.now_s += 0.5
    with pytest.raises(DeadlineExceeded):
        deadline.remaining_s()


def test_what_a_stage_has_taken_so_far_counts_where_a_request_ends_in_it() -> None:
    now = Clock()
    clock = StageClock(now)
    now.now_s += 0.5
    clock.lap("receive")
    now.now_s += 0.25
    assert clock.seconds_so_far() == {"receive": 0.5, "decode": 0.25}
    assert clock.seconds == {"receive": 0.5}
    clock.lap("serialize")
    assert clock.seconds_so_far() == clock.seconds


async def test_a_guarded_block_ends_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        async with Deadline.after_ms(5).guard():
            await asyncio.Event().wait()


async def test_a_time_out_of_the_blocks_own_is_not_taken_for_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline.after_ms(60_000).guard():
            raise TimeoutError
