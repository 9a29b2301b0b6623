"""The small parts of the gateway, each by itself, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from gateway.admission import Admission
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.metrics import Metrics
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


def admission(max_inflight: int, max_queue: int) -> tuple[Admission, Metrics]:
    metrics = Metrics(CollectorRegistry())
    gauges = {"inflight": metrics.inflight.labels("torch"), "waiting": metrics.queue_depth.labels("torch")}
    return Admission("the torch runtime", max_inflight=max_inflight, max_queue=max_queue, **gauges), metrics


async def test_places_go_to_those_who_wait_in_order_and_the_queue_is_bounded() -> None:
    places, metrics = admission(max_inflight=1, max_queue=2)
    deadline = Deadline.after_ms(60_000)
    order: list[int] = []
    first_may_leave = asyncio.Event()

    async def visit(number: int) -> None:
        async with places.places(1, deadline):
            order.append(number)
            await first_may_leave.wait()

    tasks = [asyncio.create_task(visit(number)) for number in range(3)]
    await asyncio.sleep(0)  # each task runs until it has to wait
    assert metrics.registry.get_sample_value("tandem_queue_depth", {"runtime": "torch"}) == 2
    with pytest.raises(Overloaded):
        async with places.places(1, deadline):
            raise AssertionError("there was no place")
    first_may_leave.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]
    assert metrics.registry.get_sample_value("tandem_inflight", {"runtime": "torch"}) == 0


async def test_a_cancelled_wait_gives_its_place_in_the_queue_back() -> None:
    places, metrics = admission(max_inflight=1, max_queue=1)
    deadline = Deadline.after_ms(60_000)

    async def visit() -> None:
        async with places.places(1, deadline):
            pass

    async with places.places(1, deadline):
        for _ in range(3):
            task = asyncio.create_task(visit())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert metrics.registry.get_sample_value("tandem_queue_depth", {"runtime": "torch"}) == 0
    await asyncio.wait_for(visit(), 5)


async def test_a_request_takes_a_place_for_each_picture_and_all_there_are_for_more() -> None:
    places, metrics = admission(max_inflight=4, max_queue=1)
    deadline = Deadline.after_ms(60_000)

    def inflight() -> float | None:
        return metrics.registry.get_sample_value("tandem_inflight", {"runtime": "torch"})

    async def visit(pictures: int) -> float | None:
        async with places.places(pictures, deadline):
            return inflight()

    async with places.places(3, deadline):
        assert inflight() == 3
        large = asyncio.create_task(visit(16))
        await asyncio.sleep(0)
        assert inflight() == 3  # it does not take the last place and wait for the rest: two such would wait for ever
    assert await large == 4
    assert inflight() == 0


async def test_a_small_request_goes_ahead_once_the_large_one_before_it_gives_up() -> None:
    places, _ = admission(max_inflight=2, max_queue=2)
    long, short = Deadline.after_ms(60_000), Deadline.after_ms(5)

    async def visit(pictures: int, deadline: Deadline) -> None:
        async with places.places(pictures, deadline):
            pass

    async with places.places(1, long):
        large = asyncio.create_task(visit(2, short))
        await asyncio.sleep(0)
        small = asyncio.create_task(visit(1, long))
        with pytest.raises(DeadlineExceeded):
            await large
        await small
