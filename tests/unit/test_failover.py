"""How much of a request's time its first runtime may take, when the other one takes over, and what is said of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.deadline import Deadline
from gateway.errors import (
    DeadlineExceeded,
    InvalidImage,
    Overloaded,
    RuntimeFailed,
    RuntimeUnavailable,
    TandemError,
)
from gateway.failover import LEAST_S, TIMES, Failovers
from gateway.health import Health
from gateway.inference import Answer, Picture, Question, Race, Role
from gateway.latencies import STALE_S, Latencies
from gateway.metrics import Metrics
from gateway.request_log import Origin
from gateway.router import Plan, Side
from gateway.runtimes.base import ModelRef, ModelStatus
from gateway.stages import StageClock
from gateway.tasks.base import Limits
from modelkit.spec import RUNTIME_NAMES, RuntimeName
from tests.fakes.runtimes import FakeRuntime
from tests.support.clock import Clock
from tests.support.packages import digits_spec

pytestmark = pytest.mark.anyio

SPEC = digits_spec(1)
MODEL = ModelRef("digits", 1)
TORCH, TF = Side("torch", SPEC), Side("tf", SPEC)


@dataclass
class Asked:
    runtime: RuntimeName
    role: Role
    seconds: float
    """That it was given."""
    pair: int | None


@dataclass
class World:
    """Two runtimes that answer after some time, or raise then, by a clock of the test's."""

    clock: Clock = field(default_factory=Clock)
    takes_s: dict[RuntimeName, float] = field(default_factory=lambda: {"torch": 0.1, "tf": 0.1})
    errors: dict[RuntimeName, TandemError] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    meanwhile: Any = None
    """Called while the first one is asked."""

    def __post_init__(self) -> None:
        self.fakes: dict[RuntimeName, FakeRuntime] = {name: FakeRuntime(name) for name in RUNTIME_NAMES}
        self.health = Health(self.fakes, warm_up_requests=0)
        for name in RUNTIME_NAMES:
            self.health.set(name, MODEL, ModelStatus("ready"))
        self.latencies = Latencies(self.clock)
        self.metrics = Metrics(CollectorRegistry())
        self.stages = StageClock(self.clock)
        self.failovers = Failovers(
            self.ask, busy=lambda _: False, health=self.health, latencies=self.latencies, metrics=self.metrics
        )

    async def ask(
        self,
        runtime: RuntimeName,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        *,
        role: Role,
        race: Race | None = None,
        refusal: TandemError | None = None,
    ) -> Answer:
        left_s = question.deadline.at_s - self.clock()
        self.asked.append(Asked(runtime, role, left_s, question.origin.pair))
        if refusal is not None:
            raise refusal
        clock.lap("queue")
        self.clock.now_s += min(self.takes_s[runtime], left_s)
        if self.meanwhile is not None:
            self.meanwhile()
        if self.takes_s[runtime] > left_s:
            raise DeadlineExceeded("Too late.")
        if runtime in self.errors:
            raise self.errors[runtime]
        clock.lap("rpc")
        return Answer(SPEC, runtime, pictures, [], clock, role=role)

    async def answer(self, seconds: float = 10.0, *, failover: bool = True) -> Answer:
        deadline = Deadline(self.clock() + seconds, self.clock)
        question = Question(
            SPEC, Limits(most=5, min_score=0.0, deadline=deadline), deadline, Origin("id", 0.0, "fixed", pair=7)
        )
        plan = Plan(TORCH, "fixed", other=TF, failover=failover)
        return await self.failovers.answer(plan, TF, question, [], self.stages)

    def known(self, runtime: RuntimeName, seconds: float) -> None:
        """It has lately taken so long."""
        for _ in range(30):
            self.latencies.answered(runtime, MODEL, seconds)

    def count(self, start: str, end: str) -> float | None:
        return self.metrics.registry.get_sample_value("tandem_failovers_total", {"from": start, "to": end})


@pytest.fixture
def world() -> World:
    return World()


async def test_who_answers_is_not_failed_over(world: World) -> None:
    answer = await world.answer()
    assert (answer.runtime, answer.failed_over, len(world.asked)) == ("torch", None, 1)
    assert (world.asked[0].role, world.asked[0].pair) == ("primary", 7)
    assert world.count("torch", "tf") == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeUnavailable("It is away."),
        RuntimeFailed("It broke."),
        Overloaded("It is full.", retry_after_s=1),
    ],
    ids=lambda error: error.code,
)
async def test_the_other_one_answers_with_what_is_left_where_the_first_one_fails(
    world: World, error: TandemError
) -> None:
    world.errors["torch"] = error
    answer = await world.answer(10.0)
    assert (answer.runtime, answer.role) == ("tf", "failover")
    assert answer.failed_over is not None
    assert (answer.failed_over.runtime, answer.failed_over.code) == ("torch", error.code)
    second = world.asked[1]
    assert (second.role, second.pair) == ("failover", None)
    assert second.seconds == pytest.approx(9.9)
    assert (world.count("torch", "tf"), world.count("tf", "torch")) == (1, 0)


async def test_a_clients_mistake_is_not_failed_over(world: World) -> None:
    world.errors["torch"] = InvalidImage("It is none.")
    with pytest.raises(InvalidImage):
        await world.answer()
    assert len(world.asked) == 1


async def test_without_failover_the_first_one_has_all_the_time_and_its_error_is_the_answer(world: World) -> None:
    world.errors["torch"] = RuntimeFailed("It broke.")
    with pytest.raises(RuntimeFailed):
        await world.answer(10.0, failover=False)
    assert [each.seconds for each in world.asked] == [pytest.approx(10.0)]


async def test_where_both_fail_there_is_no_third_attempt_and_the_last_error_is_the_answer(world: World) -> None:
    world.errors |= {"torch": RuntimeFailed("It broke."), "tf": RuntimeUnavailable("It is away.")}
    with pytest.raises(RuntimeUnavailable):
        await world.answer()
    assert [each.runtime for each in world.asked] == ["torch", "tf"]


@pytest.mark.parametrize("why", ["not ready", "circuit open"])
async def test_an_other_one_that_cannot_answer_is_not_asked_and_takes_no_time_from_the_first(
    world: World, why: str
) -> None:
    if why == "not ready":
        world.health.set("tf", MODEL, ModelStatus("loading"))
    world.fakes["tf"].circuit_open = why == "circuit open"
    world.errors["torch"] = RuntimeFailed("It broke.")
    with pytest.raises(RuntimeFailed):
        await world.answer(10.0)
    assert [each.seconds for each in world.asked] == [pytest.approx(10.0)]
    assert world.count("torch", "tf") == 0


async def test_a_first_one_that_is_known_not_to_be_ready_is_not_waited_for(world: World) -> None:
    world.takes_s["torch"] = 100.0
    world.health.set("torch", MODEL, ModelStatus("unavailable", "It does not answer."))
    answer = await world.answer(10.0)
    assert answer.failed_over is not None
    assert (answer.runtime, answer.failed_over.code) == ("tf", "runtime_unavailable")
    assert world.asked[1].seconds == pytest.approx(10.0)


async def test_a_first_one_that_is_not_ready_is_tried_all_the_same_where_the_other_one_is_not_either(
    world: World,
) -> None:
    for name in RUNTIME_NAMES:
        world.health.set(name, MODEL, ModelStatus("unavailable", "It does not answer."))
    assert (await world.answer()).runtime == "torch"


@pytest.mark.parametrize(
    ("usual_s", "whole_s", "part_s"),
    [
        (0.02, 10.0, LEAST_S),
        (0.5, 10.0, None),
        (2.1, 10.0, 5.0),
        (8.0, 10.0, 10.0),
        (0.02, 0.5, 0.25),
        (0.4, 0.5, 0.5),
        (None, 10.0, 5.0),
        (None, 1.0, 1.0),
    ],
    ids=["fast", "several times", "half", "slow", "short", "too short", "unknown", "unknown, short"],
)
async def test_one_that_hangs_has_a_part_of_the_time_by_what_is_usual(
    world: World, usual_s: float | None, whole_s: float, part_s: float | None
) -> None:
    if usual_s is not None:
        world.known("torch", usual_s)
    if part_s is None:
        part_s = TIMES * (world.latencies.quantile_s("torch", MODEL, 0.95) or 0.0)
        assert LEAST_S < part_s < whole_s / 2
    world.takes_s["torch"] = 1000.0
    if part_s == whole_s:
        with pytest.raises(DeadlineExceeded):
            await world.answer(whole_s)
    else:
        answer = await world.answer(whole_s)
        assert answer.failed_over is not None
        assert (answer.runtime, answer.failed_over.code) == ("tf", "deadline_exceeded")
        assert world.asked[1].seconds == pytest.approx(whole_s - part_s)
    assert world.asked[0].seconds == pytest.approx(part_s)


async def test_one_that_has_hung_for_long_is_given_more_time_by_one_request_in_a_while(world: World) -> None:
    world.known("torch", 0.02)
    world.clock.now_s += STALE_S + 1
    for _ in range(3):
        await world.answer(10.0)
    assert [each.seconds for each in world.asked] == [pytest.approx(5.0), pytest.approx(1.0), pytest.approx(1.0)]


async def test_one_that_is_cut_where_the_other_one_has_gone_meanwhile_is_told_so(world: World) -> None:
    world.takes_s["torch"] = 1000.0
    world.meanwhile = lambda: world.health.set("tf", MODEL, ModelStatus("unavailable"))
    with pytest.raises(DeadlineExceeded, match="is not ready to take over"):
        await world.answer(10.0)
    assert len(world.asked) == 1


async def test_the_stages_add_up_to_the_whole_and_the_second_ones_own_are_without_the_first(world: World) -> None:
    world.stages.lap("receive")
    world.errors["torch"] = RuntimeFailed("It broke.")
    world.takes_s = {"torch": 0.3, "tf": 0.1}
    started_s = world.clock()
    answer = await world.answer()
    assert answer.clock is world.stages
    assert answer.clock.seconds == {"receive": 0.0, "queue": pytest.approx(0.3), "rpc": pytest.approx(0.1)}
    assert sum(answer.clock.seconds.values()) == pytest.approx(world.clock() - started_s)
    world.clock.now_s += 0.05
    world.stages.lap("serialize")
    assert world.stages.seconds["serialize"] == pytest.approx(0.05)
    assert world.stages.elapsed_s() == pytest.approx(0.45)
