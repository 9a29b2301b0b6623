"""Admission: who has a place, who waits, and who is told at once that it is no use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry

from gateway.admission import Admission
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.metrics import Metrics
from tests.support.clock import Clock

pytestmark = pytest.mark.anyio


def admission(
    max_inflight: int, max_queue: int, clock: Callable[[], float] = time.monotonic
) -> tuple[Admission, Metrics]:
    metrics = Metrics(CollectorRegistry())
    places = Admission(
        "the torch runtime",
        most=lambda: max_inflight,
        max_queue=max_queue,
        inflight=metrics.inflight.labels("torch"),
        waiting=metrics.queue_depth.labels("torch"),
        clock=clock,
    )
    return places, metrics


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


async def taught(held_s: float, *, max_inflight: int = 1, max_queue: int = 100) -> tuple[Admission, Clock]:
    """One at which a place has always been held for so long."""
    clock = Clock()
    places, _ = admission(max_inflight, max_queue, clock)
    for _ in range(20):
        async with places.places(1, Deadline.after_ms(60_000, clock)):
            clock.now_s += held_s
    return places, clock


async def test_a_request_that_would_wait_longer_than_it_may_is_refused_at_once_and_told_how_long_the_wait_is() -> None:
    places, clock = await taught(2.0, max_inflight=2)
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(places.places(1, Deadline.after_ms(60_000, clock)))
        waiting = [asyncio.create_task(_visit(places, Deadline.after_ms(60_000, clock))) for _ in range(6)]
        await asyncio.sleep(0)
        # Seven are to leave, one a second, and then it takes two itself; it is let in with twice as much.
        places.check(1, Deadline.after_ms(18_100, clock))
        with pytest.raises(Overloaded) as refused:
            places.check(1, Deadline.after_ms(17_900, clock))
        assert refused.value.retry_after_s == pytest.approx(7.0)
    await asyncio.gather(*waiting)


async def test_a_request_for_which_a_place_is_free_is_never_refused_however_slow_others_were() -> None:
    places, clock = await taught(5.0)
    places.check(1, Deadline.after_ms(1, clock))
    async with places.places(1, Deadline.after_ms(1, clock)):
        assert places.busy


async def test_a_deadline_that_has_passed_is_no_overload() -> None:
    places, clock = await taught(0.01)
    deadline = Deadline.after_ms(5, clock)
    clock.now_s += 1
    with pytest.raises(DeadlineExceeded):
        places.check(1, deadline)


async def test_pictures_that_are_prepared_are_ahead_of_who_comes_later() -> None:
    places, clock = await taught(1.0)
    deadline = Deadline.after_ms(7_000, clock)
    with places.coming(1):
        assert places.busy
        places.check(1, deadline)
        with places.coming(2), pytest.raises(Overloaded):
            places.check(1, deadline)
    assert not places.busy


async def test_pictures_that_are_prepared_count_for_the_queue_as_far_as_no_place_is_free_for_them() -> None:
    places, _ = admission(max_inflight=2, max_queue=1)
    deadline = Deadline.after_ms(60_000)
    with places.coming(2):
        places.check(1, deadline)
        with places.coming(1), pytest.raises(Overloaded):
            places.check(1, deadline)


async def test_what_a_request_needs_afterwards_is_part_of_what_it_needs() -> None:
    places, clock = await taught(1.0)
    deadline = Deadline.after_ms(2_500, clock)
    async with places.places(1, deadline):
        with pytest.raises(Overloaded):
            async with places.places(1, deadline, then_s=1.0):
                raise AssertionError("it would not be in time")
        places.check(1, Deadline.after_ms(6_000, clock), then_s=0.5)
        with pytest.raises(Overloaded):
            places.check(1, Deadline.after_ms(6_000, clock), then_s=1.5)


async def test_a_place_is_not_given_to_one_whose_time_is_too_short_for_it() -> None:
    places, clock = await taught(1.0, max_inflight=1)
    async with places.places(1, Deadline.after_ms(60_000, clock)):
        late = asyncio.create_task(_visit(places, Deadline.after_ms(2_500, clock)))
        behind = asyncio.create_task(_visit(places, Deadline.after_ms(60_000, clock)))
        await asyncio.sleep(0)
        clock.now_s += 2.0  # the one ahead took twice as long as others
    with pytest.raises(DeadlineExceeded):
        await late
    await behind
    assert not places.busy


async def test_so_long_as_nothing_is_known_of_the_pace_requests_wait() -> None:
    places, _ = admission(max_inflight=1, max_queue=1)
    async with places.places(1, Deadline.after_ms(60_000)):
        waiting = asyncio.create_task(_visit(places, Deadline.after_ms(60_000)))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_places_given_back_while_others_wait_are_told_with_when_they_were_taken() -> None:
    clock, told = Clock(), list[tuple[int, float]]()
    metrics = Metrics(CollectorRegistry())
    places = Admission(
        "the torch runtime",
        most=lambda: 2,
        max_queue=2,
        inflight=metrics.inflight.labels("torch"),
        waiting=metrics.queue_depth.labels("torch"),
        learn=lambda count, since_s: told.append((count, since_s)),
        clock=clock,
    )
    deadline = Deadline.after_ms(60_000, clock)
    clock.now_s = since_s = clock.now_s + 1
    async with places.places(2, deadline):
        waiting = asyncio.create_task(_visit(places, deadline))
        await asyncio.sleep(0)
        clock.now_s += 1
    await waiting
    assert told == [(2, since_s)]  # nobody waited when the second one left


async def _visit(places: Admission, deadline: Deadline) -> None:
    async with places.places(1, deadline):
        pass


async def test_with_another_worker_there_are_more_places_and_with_one_less_no_more_are_given_until_there_is_room() -> (
    None
):
    metrics = Metrics(CollectorRegistry())
    workers = [1]
    places = Admission(
        "the torch runtime",
        most=lambda: 2 * len(workers),
        max_queue=0,
        inflight=metrics.inflight.labels("torch"),
        waiting=metrics.queue_depth.labels("torch"),
    )
    deadline = Deadline.after_ms(60_000)
    async with places.places(2, deadline):
        with pytest.raises(Overloaded):
            places.check(1, deadline)
        workers.append(2)
        async with places.places(2, deadline):
            workers.pop()
            assert places.busy
        assert places.busy
    assert not places.busy
