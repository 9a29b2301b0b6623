"""What requests may hold in memory: bytes are refused where they are too many, pixels are waited for."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from gateway.deadline import Deadline
from gateway.decoding import Decoding
from gateway.errors import DeadlineExceeded, InvalidImage, Overloaded
from gateway.inference import Question
from gateway.metrics import Metrics
from gateway.pixels import Pixels
from gateway.request_log import Origin
from gateway.tasks.base import Limits
from gateway.upload import Uploads
from tests.support.packages import digits_spec
from tests.support.pictures import encode, plain

pytestmark = pytest.mark.anyio

SPEC = digits_spec()
LONG = 60_000


def pixels(most: int) -> tuple[Pixels, Metrics]:
    metrics = Metrics(CollectorRegistry())
    return Pixels(most, metrics.inflight_pixels), metrics


def taken(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("tandem_inflight_pixels")


def question(*, keep_originals: bool = False, timeout_ms: int = LONG) -> Question:
    deadline = Deadline.after_ms(timeout_ms)
    asked = Limits(most=5, min_score=0.0, deadline=deadline)
    return Question(SPEC, asked, deadline, Origin("id", 0.0, "fixed"), keep_originals=keep_originals)


def decoding(room: Pixels, *images: bytes, keep_originals: bool = False, timeout_ms: int = LONG) -> Decoding:
    asked = question(keep_originals=keep_originals, timeout_ms=timeout_ms)
    return Decoding(images, asked, room, max_pixels=1_000_000, keep_files=False)


def test_bytes_over_the_limit_are_refused_and_what_is_held_is_free_again_at_the_end() -> None:
    metrics = Metrics(CollectorRegistry())
    uploads = Uploads(100, metrics.inflight_bytes)
    with uploads.begin() as first, uploads.begin() as second:
        first.take(60)
        second.take(40)
        with pytest.raises(Overloaded):
            second.take(1)
        assert second.held == 40
        first.give_back(30)
        second.take(30)
    assert metrics.registry.get_sample_value("tandem_inflight_bytes") == 0


def test_a_request_that_is_alone_has_room_whatever_it_holds() -> None:
    uploads = Uploads(100, Metrics(CollectorRegistry()).inflight_bytes)
    with uploads.begin() as alone:
        alone.take(90)
        alone.check(1000)
        alone.take(1000)
        with uploads.begin() as other, pytest.raises(Overloaded):
            other.check(1)


async def test_pixels_go_to_those_who_wait_in_order_and_nobody_goes_ahead() -> None:
    room, metrics = pixels(100)
    assert room.take(60) == 60
    order: list[int] = []

    async def wait(wanted: int) -> None:
        room.give_back(await room.wait_for(wanted, Deadline.after_ms(LONG)))
        order.append(wanted)

    large = asyncio.create_task(wait(90))
    await asyncio.sleep(0)
    small = asyncio.create_task(wait(10))
    await asyncio.sleep(0)
    assert room.take(10) == 0  # there are, but others wait
    await asyncio.to_thread(room.give_back, 60)
    await asyncio.gather(large, small)
    assert order == [90, 10]
    assert taken(metrics) == 0


async def test_a_picture_with_more_pixels_than_there_may_be_takes_all_there_are() -> None:
    room, _ = pixels(100)
    assert room.take(1000) == 100
    room.give_back(100)
    assert await room.wait_for(1000, Deadline.after_ms(LONG)) == 100


async def test_a_wait_for_pixels_ends_at_the_deadline_and_those_behind_go_on() -> None:
    room, metrics = pixels(100)
    room.take(60)
    with pytest.raises(DeadlineExceeded):
        await room.wait_for(90, Deadline.after_ms(5))
    with pytest.raises(DeadlineExceeded):
        await room.wait_for(40, Deadline.after_ms(0))  # there are enough, and it was too late for them
    behind = asyncio.create_task(room.wait_for(90, Deadline.after_ms(LONG)))
    await asyncio.sleep(0)
    room.give_back(60)
    behind.cancel()  # at the very moment in which it is granted
    await asyncio.gather(behind, return_exceptions=True)
    assert await room.wait_for(100, Deadline.after_ms(LONG)) == 100
    assert taken(metrics) == 100


def test_pictures_of_a_request_are_decoded_one_after_the_other_and_then_hold_no_pixels() -> None:
    room, metrics = pixels(32 * 32)
    work = decoding(room, encode(plain(1)), encode(plain(2)))
    work.run()
    assert [int(each.tensor[0, 0, 0, 0]) for each in work.pictures] == [1, 2]
    assert (work.lacks, taken(metrics)) == (0, 0)


def test_a_picture_that_lacks_pixels_goes_on_where_it_was_once_they_are_granted() -> None:
    room, metrics = pixels(2000)
    room.take(1000)
    work = decoding(room, encode(plain(1, (30, 30))), encode(plain(2, (40, 40))))
    work.run()
    assert (len(work.pictures), work.lacks) == (1, 1600)
    room.give_back(1000)
    work.granted(room.take(work.lacks))
    work.run()
    assert (len(work.pictures), work.lacks, taken(metrics)) == (2, 0, 0)


def test_an_original_that_is_kept_holds_its_pixels_until_the_request_ends() -> None:
    room, metrics = pixels(2000)
    work = decoding(room, encode(plain(1)), keep_originals=True)
    work.run()
    assert taken(metrics) == 32 * 32
    work.close()
    work.close()
    assert taken(metrics) == 0


@pytest.mark.parametrize("granted", [True, False], ids=["pixels were granted", "none were"])
def test_work_that_is_closed_before_it_begins_does_nothing_and_holds_nothing(granted: bool) -> None:
    room, metrics = pixels(2000)
    work = decoding(room, encode(plain(1)))
    if granted:
        work.granted(room.take(32 * 32))
    work.close()
    work.run()
    assert (work.pictures, taken(metrics)) == ([], 0)


def test_pixels_of_work_that_is_given_up_while_a_thread_is_at_it_are_free_when_the_thread_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        begun.set()
        may_end.wait(30)
        raise InvalidImage("It is corrupt.")

    monkeypatch.setattr("gateway.decoding.pixels_of", slow)
    room, metrics = pixels(2000)
    work = decoding(room, encode(plain(1)))
    failed: list[Exception] = []

    def run() -> None:
        try:
            work.run()
        except InvalidImage as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    work.close()
    assert taken(metrics) == 32 * 32
    may_end.set()
    thread.join(30)
    assert (len(failed), taken(metrics)) == (1, 0)


def test_no_picture_is_decoded_after_the_deadline() -> None:
    room, metrics = pixels(2000)
    work = decoding(room, encode(plain(1)), timeout_ms=0)
    with pytest.raises(DeadlineExceeded):
        work.run()
    assert taken(metrics) == 0
