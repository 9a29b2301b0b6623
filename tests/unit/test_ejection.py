"""Workers that hang, are slow, or fail on everything, beside others that are well."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.breaker import FAILURES, OPEN_S
from gateway.errors import DeadlineExceeded, RuntimeFailed, RuntimeUnavailable
from gateway.runtimes.base import ModelStatus
from gateway.runtimes.outliers import AGAIN_S, TRIALS
from gateway.runtimes.pace import ENOUGH
from gateway.runtimes.replica import MISSED_S, STALLED_S
from tests.support.workers import DIGITS, WARM_UP_REQUESTS, Workers

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD = "10.0.0.1", "10.0.0.2", "10.0.0.3"


async def serving(*hosts: str) -> Workers:
    workers = Workers(*hosts)
    await workers.status()
    await workers.infer(2 * len(hosts))
    return workers


async def until_noticed(workers: Workers) -> ModelStatus:
    """As many looks as a hung worker needs."""
    for _ in range(2):
        await workers.status()
    return await workers.status()


async def test_a_hung_worker_gets_no_requests_and_the_others_status_is_not_late() -> None:
    workers = await serving(FIRST, SECOND)
    awake = workers.hang(FIRST)
    status = await until_noticed(workers)
    assert (status.state, status.hung) == ("ready", False)
    before = workers.seen()
    await workers.infer(6)
    assert workers.seen() == before | {SECOND: before[SECOND] + 6}
    assert workers.ejections("hung") == 1
    assert workers.metric("tandem_replicas_usable") == 1
    assert workers.metric("tandem_replicas") == 2
    awake.set()


async def test_what_waits_for_a_hung_worker_is_given_up_at_once() -> None:
    workers = await serving(FIRST)
    awake = workers.hang(FIRST)
    waiting = [asyncio.create_task(workers.infer()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (await until_noticed(workers)).state == "unavailable"
    for each in waiting:
        with pytest.raises(RuntimeUnavailable, match="does not answer any more"):
            await each
    awake.set()


async def test_a_single_worker_that_hangs_is_answered_for_without_a_call_until_it_is_back() -> None:
    workers = await serving(FIRST)
    awake = workers.hang(FIRST)
    assert (await until_noticed(workers)).hung
    before = workers.seen()
    with pytest.raises(RuntimeUnavailable, match="do not answer"):
        await workers.infer()
    assert workers.seen() == before
    assert workers.metric("tandem_breaker_state") == 2
    awake.set()
    assert (await workers.status()).state == "ready"
    await workers.infer()
    assert workers.metric("tandem_breaker_state") == 0


async def test_a_worker_that_is_back_from_hanging_gets_its_share_again_without_a_warm_up() -> None:
    workers = await serving(FIRST, SECOND)
    awake = workers.hang(FIRST)
    await until_noticed(workers)
    awake.set()
    await workers.status()
    before = workers.seen()
    await workers.infer(4)
    assert workers.seen() == {FIRST: before[FIRST] + 2, SECOND: before[SECOND] + 2}
    assert workers.metric("tandem_replicas_usable") == 2


async def test_a_worker_that_answers_pictures_does_not_hang_however_late_its_status_is() -> None:
    workers = await serving(FIRST)
    late = workers.fakes[FIRST].hold_status = asyncio.Event()
    for _ in range(5):
        await workers.infer()
        assert (await workers.status()).state == "ready"
    assert workers.ejections("hung") == 0
    late.set()


async def test_pictures_that_nobody_answers_open_the_circuit_though_the_status_is_well() -> None:
    workers = await serving(FIRST)
    awake = workers.fakes[FIRST].hold = asyncio.Event()
    stuck = asyncio.create_task(workers.infer())
    await asyncio.sleep(0)
    workers.now_s += STALLED_S
    await workers.status()
    with pytest.raises(RuntimeUnavailable, match="does not answer any more"):
        await stuck
    with pytest.raises(RuntimeUnavailable, match="do not answer"):
        await workers.infer()
    assert workers.ejections("hung") == 1
    awake.set()
    workers.now_s += OPEN_S
    await workers.infer(2)
    await workers.status()
    assert workers.metric("tandem_breaker_state") == 0


@pytest.mark.parametrize(("waited_s", "opens"), [(MISSED_S, True), (MISSED_S / 10, False)], ids=["long", "tiny"])
async def test_deadlines_missed_in_a_row_tell_only_where_they_left_time_enough(waited_s: float, opens: bool) -> None:
    workers = await serving(FIRST)
    workers.seconds[FIRST], workers.fakes[FIRST].error = waited_s, DeadlineExceeded("late")
    for _ in range(FAILURES):
        with pytest.raises(DeadlineExceeded):
            await workers.infer()
    assert workers.replicas._replicas[f"{FIRST}:7070"].allows(DIGITS) is not opens
    assert workers.ejections("hung") == opens


async def test_a_cancelled_call_counts_for_nothing() -> None:
    workers = await serving(FIRST)
    workers.fakes[FIRST].hold = asyncio.Event()
    call = asyncio.create_task(workers.infer())
    await asyncio.sleep(0)
    workers.now_s += STALLED_S
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await workers.status()
    assert workers.replicas._replicas[f"{FIRST}:7070"].allows(DIGITS)


async def test_a_slow_worker_is_set_aside_and_taken_back_when_it_is_as_fast_as_the_others() -> None:
    workers = await serving(FIRST, SECOND, THIRD)
    workers.seconds = {FIRST: 0.1, SECOND: 0.01, THIRD: 0.01}
    await workers.infer(3 * ENOUGH + 3)
    await workers.status()
    assert workers.ejections("slow") == 1
    before = workers.seen()
    await workers.infer(4)
    assert workers.seen() == before | {SECOND: before[SECOND] + 2, THIRD: before[THIRD] + 2}
    for seconds, back in ((0.1, False), (0.01, True)):
        workers.seconds[FIRST] = seconds
        workers.now_s += AGAIN_S
        before = workers.seen()
        await workers.status()
        assert workers.seen()[FIRST] == before[FIRST] + TRIALS  # no user's picture
        await workers.status()
        assert (workers.metric("tandem_replicas_usable") == 3) is back
    await workers.infer(3)
    assert workers.seen()[FIRST] == before[FIRST] + TRIALS + 1


async def test_at_most_half_are_set_aside_and_never_the_only_one() -> None:
    alone = await serving(FIRST)
    alone.seconds = {FIRST: 3.0}
    await alone.infer(2 * ENOUGH)
    await alone.status()
    assert alone.ejections("slow") == 0
    workers = await serving(FIRST, SECOND, THIRD)
    for host in (FIRST, SECOND):
        workers.fakes[host].error = RuntimeFailed("It is broken.")
    for _ in range(6 * FAILURES):
        with contextlib.suppress(RuntimeFailed):
            await workers.infer()
    await workers.status()
    assert workers.ejections("errors") == 1
    assert workers.metric("tandem_replicas_usable") == 2


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(None, id="an error"),
        pytest.param(np.zeros((1, 9), np.float32), id="another shape"),
        pytest.param(np.full((1, 10), np.nan, np.float32), id="NaN"),
        pytest.param(np.full((1, 10), -np.inf, np.float32), id="infinite"),
    ],
)
async def test_a_worker_that_fails_on_everything_is_set_aside_until_it_does_not(
    scores: NDArray[np.float32] | None,
) -> None:
    workers = await serving(FIRST, SECOND)
    if scores is None:
        workers.fakes[FIRST].error = RuntimeFailed("It is broken.")
    else:
        workers.fakes[FIRST].tensors = {"scores": scores}
    failed = 0
    for _ in range(4 * FAILURES):
        try:
            await workers.infer()
        except RuntimeFailed:
            failed += 1
    assert failed == FAILURES  # without waiting for the next status
    workers.now_s += AGAIN_S
    await workers.status()
    await workers.status()
    assert workers.metric("tandem_replicas_usable") == 1  # the trial has failed
    workers.fakes[FIRST].error = workers.fakes[FIRST].tensors = None
    workers.now_s += AGAIN_S
    await workers.status()
    assert workers.metric("tandem_replicas_usable") == 1  # as of before its trial
    await workers.status()
    assert workers.metric("tandem_replicas_usable") == 2
    await workers.infer(2)


async def test_whoever_is_set_aside_is_better_than_nobody() -> None:
    workers = await serving(FIRST, SECOND)
    workers.seconds = {FIRST: 0.1, SECOND: 0.01}
    await workers.infer(2 * ENOUGH + 2)
    await workers.status()
    assert workers.ejections("slow") == 1
    workers.fakes[SECOND].status_now = ModelStatus("unavailable", "It is away.")
    await workers.status()
    before = workers.seen()[FIRST]
    await workers.infer(3)
    assert workers.seen()[FIRST] == before + 3


async def test_a_worker_that_is_hung_and_then_gone_is_warmed_up_when_another_comes_in_its_place() -> None:
    workers = await serving(FIRST, SECOND)
    workers.hang(FIRST)
    await until_noticed(workers)
    hung = workers.fakes[FIRST]
    hung.hold, hung.status_now = None, ModelStatus("unavailable", "It is away.")
    assert hung.hold_status is not None
    hung.hold_status.set()
    await workers.status()
    hung.status_now = ModelStatus("ready")
    before = workers.seen()[FIRST]
    await workers.status()
    assert workers.seen()[FIRST] == before + WARM_UP_REQUESTS
