"""When a request is hedged, who wins, and what becomes of the loser."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.errors import RuntimeFailed, RuntimeUnavailable
from gateway.hedging import Budget, Hedges
from gateway.inference import Answer, Race
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.routing import Hedge
from gateway.runtimes.base import ModelRef
from gateway.stages import StageClock
from modelkit.spec import RuntimeName
from tests.support.clock import Clock
from tests.support.packages import digits_spec

pytestmark = pytest.mark.anyio

MODEL = ModelRef("digits", 1)
SPEC = digits_spec(1)


class World:
    """A race between torch and its hedge, tf, each of which ends when the test says so."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.latencies = Latencies(Clock())
        self.hedges = Hedges(self.latencies, self.metrics)
        self.race = Race()
        self.ends: dict[RuntimeName, asyncio.Future[None]] = {}
        self.begun = asyncio.Event()
        """tf was asked."""
        self.cancelled: list[tuple[RuntimeName, bool]] = []
        """And whether the race was over."""

    async def ask(self, runtime: RuntimeName) -> Answer:
        end = self.ends.setdefault(runtime, asyncio.get_running_loop().create_future())
        if runtime == "tf":
            self.begun.set()
        try:
            await end
        except asyncio.CancelledError:
            self.cancelled.append((runtime, self.race.over))
            raise
        return Answer(SPEC, runtime, [], [], StageClock())

    def start(self, *, hedged: bool = True) -> asyncio.Task[Answer]:
        def second() -> Coroutine[Any, Any, Answer] | None:
            return self.ask("tf") if hedged else None

        self.ends["torch"] = asyncio.get_running_loop().create_future()
        race = self.hedges.race(("torch", "tf"), self.ask("torch"), 0.0, second, self.race)
        return asyncio.create_task(race)

    def count(self, outcome: str) -> float | None:
        labels = {"from": "torch", "to": "tf", "outcome": outcome}
        return self.metrics.registry.get_sample_value("tandem_hedges_total", labels)

    def counts(self) -> dict[str, float | None]:
        return {outcome: self.count(outcome) for outcome in ("won", "lost", "failed")}

    def refused(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "tandem_hedges_refused_total", {"from": "torch", "reason": reason}
        )


@pytest.fixture
async def world() -> World:
    return World()


async def test_the_hedge_that_answers_first_is_the_answer_and_the_first_one_is_overtaken(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    world.ends["tf"].set_result(None)
    answer = await task
    assert (answer.runtime, answer.failed_over) == ("tf", None)
    assert world.cancelled == [("torch", True)]
    assert world.counts() == {"won": 1, "lost": 0, "failed": 0}


async def test_a_first_one_that_answers_after_all_overtakes_its_hedge(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    world.ends["torch"].set_result(None)
    assert (await task).runtime == "torch"
    assert world.cancelled == [("tf", True)]
    assert world.counts() == {"won": 0, "lost": 1, "failed": 0}


async def test_of_two_that_answer_at_once_the_first_one_is_taken(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    for end in world.ends.values():
        end.set_result(None)
    assert (await task).runtime == "torch"
    assert (world.cancelled, world.count("lost")) == ([], 1)


async def test_where_the_first_one_fails_while_the_hedge_runs_the_hedge_is_the_failover(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    world.ends["torch"].set_exception(RuntimeFailed("It broke."))
    await asyncio.wait([world.ends["torch"]])
    world.ends["tf"].set_result(None)
    answer = await task
    assert answer.failed_over is not None
    assert (answer.runtime, answer.failed_over.code) == ("tf", "runtime_failed")
    assert world.count("won") == 1


async def test_a_hedge_that_fails_is_nobodys_trouble(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    world.ends["tf"].set_exception(RuntimeFailed("It broke."))
    await asyncio.wait([world.ends["tf"]])
    world.ends["torch"].set_result(None)
    assert (await task).runtime == "torch"
    assert world.counts() == {"won": 0, "lost": 0, "failed": 1}


async def test_where_both_fail_the_last_error_is_the_answer(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    world.ends["torch"].set_exception(RuntimeFailed("It broke."))
    await asyncio.wait([world.ends["torch"]])
    world.ends["tf"].set_exception(RuntimeUnavailable("It is away."))
    with pytest.raises(RuntimeUnavailable):
        await task
    assert world.counts() == {"won": 0, "lost": 0, "failed": 1}


async def test_a_client_that_goes_takes_both_with_it_and_neither_was_overtaken(world: World) -> None:
    task = world.start()
    await world.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.cancelled == [("torch", False), ("tf", False)]
    assert world.counts() == {"won": 0, "lost": 0, "failed": 0}


async def test_a_request_that_may_not_be_hedged_is_as_one_without(world: World) -> None:
    task = world.start(hedged=False)
    world.ends["torch"].set_result(None)
    assert (await task).runtime == "torch"
    assert world.counts() == {"won": 0, "lost": 0, "failed": 0}


def test_a_budget_is_a_share_of_the_requests_with_a_small_burst() -> None:
    budget = Budget()
    taken = 0
    for _ in range(10_000):
        budget.add(0.05)
        taken += budget.take()
    assert 495 <= taken <= 501
    for _ in range(10_000):
        budget.add(0.05)
    assert sum(budget.take() for _ in range(1000)) == 10


async def test_the_delay_is_as_said_or_what_95_percent_took_or_not_known(world: World) -> None:
    hedge, fixed = Hedge(), Hedge(after_ms=30)
    assert world.hedges.delay_s(fixed, "torch", MODEL) == pytest.approx(0.03)
    assert world.hedges.delay_s(hedge, "torch", MODEL) is None
    for number in range(100):
        world.latencies.answered("torch", MODEL, 0.2 if number % 10 == 0 else 0.01)
    assert world.hedges.delay_s(hedge, "torch", MODEL) == pytest.approx(0.2, rel=0.2)


async def test_a_hedge_is_refused_by_the_budget_and_by_how_the_other_one_is_and_says_why(world: World) -> None:
    assert not world.hedges.allows("torch", MODEL, ready=False, busy=False)
    assert not world.hedges.allows("torch", MODEL, ready=True, busy=True)
    assert world.hedges.allows("torch", MODEL, ready=True, busy=False)  # the first one of all; the others took nothing
    assert not world.hedges.allows("torch", MODEL, ready=True, busy=False)
    assert [world.refused(reason) for reason in ("not_ready", "busy", "budget")] == [1, 1, 1]
    for _ in range(20):
        world.hedges.delay_s(Hedge(), "torch", MODEL)
    assert world.hedges.allows("torch", MODEL, ready=True, busy=False)
