"""Who answers: the policy, and what the request itself names."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from gateway.catalogue import Catalogue
from gateway.errors import Conflict, InvalidParameter, ModelNotFound
from gateway.health import Health
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.policies import Kept
from gateway.router import Plan, Router
from gateway.routing import Canary, Fastest, Fixed, Policy, Progress, Shadow, Target, TargetPair
from gateway.runtimes.base import ModelRef, ModelStatus
from modelkit import lifecycle
from modelkit.spec import InputSpec, RuntimeName
from tests.fakes.runtimes import FakeRuntime
from tests.support.packages import digits_spec, write_packages, write_store

pytestmark = pytest.mark.anyio


class Stub:
    """Policies without a database."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def of(self, model: str) -> Kept:
        return Kept(self.policy, 1, None, Progress(0, 0.0, "running", "It has begun."))


class World:
    """A router over a store with versions 1 and 2 (the default) of `digits`, and 3, which takes larger pictures."""

    def __init__(self, store: Path, policy: Policy) -> None:
        write_store(store, 1, 2)
        write_packages(store, digits_spec(3).model_copy(update={"input": InputSpec(height=64, width=64)}))
        lifecycle.set_default(store, "digits", 2)
        self.store = store
        self.metrics = Metrics(CollectorRegistry())
        self.catalogue = Catalogue(store)
        fakes: dict[RuntimeName, FakeRuntime] = {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf")}
        self.health = Health(fakes, warm_up_requests=0)
        self.latencies = Latencies()
        self.router = Router(
            self.catalogue,
            Stub(policy),  # type: ignore[arg-type]
            health=self.health,
            latencies=self.latencies,
            metrics=self.metrics,
        )

    def plan(self, runtime: RuntimeName | None = None, version: int | None = None) -> str:
        """`primary` or `primary + shadow`, as targets."""
        plan: Plan = self.router.plan("digits", runtime=runtime, version=version, key=None)
        return " + ".join(f"{side.runtime}@{side.spec.version}" for side in (plan.primary, plan.shadow) if side)

    async def remove(self, version: int) -> None:
        lifecycle.retire(self.store, "digits", version)
        await self.catalogue.refresh()

    def dropped(self, reason: str) -> float | None:
        labels = {"model": "digits", "reason": reason}
        return self.metrics.registry.get_sample_value("tandem_shadow_dropped_total", labels)


def fixed(target: str) -> Fixed:
    return Fixed(policy="fixed", target=Target.parse(target))


def fastest(*targets: str) -> Fastest:
    return Fastest.model_validate({"policy": "fastest", "targets": targets, "explore": 0})


def canary(start: str, end: str, **more: object) -> Canary:
    return Canary.model_validate({"policy": "canary", "from": start, "to": end, "steps": [1], "sample_rate": 1} | more)


def shadow(primary: str, second: str) -> Shadow:
    return Shadow(policy="shadow", primary=Target.parse(primary), shadow=Target.parse(second))


@pytest.mark.parametrize(
    ("policy", "runtime", "version", "expected"),
    [
        (fixed("tf"), None, None, "tf@2"),
        (fixed("tf@1"), None, None, "tf@1"),
        (fixed("tf"), None, 1, "tf@1"),
        (fixed("tf@1"), None, 2, "tf@2"),
        (fixed("tf@1"), "torch", None, "torch@2"),
        (fixed("tf@1"), "tf", None, "tf@2"),
        (shadow("torch", "tf"), None, None, "torch@2 + tf@2"),
        (shadow("torch", "tf@1"), None, None, "torch@2 + tf@1"),
        (shadow("tf", "tf"), None, None, "tf@2 + tf@2"),
        (shadow("torch", "tf"), None, 1, "torch@1 + tf@1"),
        (shadow("torch@1", "tf@1"), None, 1, "torch@1 + tf@1"),
        (shadow("torch", "tf@1"), None, 2, "torch@2"),
        (shadow("torch@1", "torch@2"), None, 2, "torch@2"),
        (shadow("torch", "tf"), "torch", None, "torch@2"),
        (canary("torch", "tf@1"), None, None, "tf@1 + torch@2"),
        (canary("torch", "tf@1"), None, 2, "tf@2"),
        (canary("torch", "tf"), None, 1, "tf@1 + torch@1"),
    ],
    ids=str,
)
def test_what_the_request_names_comes_before_the_policy_and_is_only_shadowed_where_both_agree(
    tmp_path: Path, policy: Policy, runtime: RuntimeName | None, version: int | None, expected: str
) -> None:
    world = World(tmp_path, policy)
    assert world.plan(runtime, version) == expected
    assert world.dropped("no_version") is None


@pytest.mark.parametrize(
    ("policy", "runtime", "expected"),
    [(fixed("tf"), None, "fixed"), (shadow("torch", "tf"), None, "shadow"), (shadow("torch", "tf"), "torch", "named")],
    ids=str,
)
def test_a_plan_says_how_its_primary_was_chosen(
    tmp_path: Path, policy: Policy, runtime: RuntimeName | None, expected: str
) -> None:
    world = World(tmp_path, policy)
    assert world.router.plan("digits", runtime=runtime, version=1, key=None).policy == expected


@pytest.mark.parametrize(("model", "version"), [("cats", None), ("digits", 9)])
def test_a_request_for_what_is_not_there_is_not_found(tmp_path: Path, model: str, version: int | None) -> None:
    with pytest.raises(ModelNotFound):
        World(tmp_path, fixed("tf")).router.plan(model, runtime=None, version=version, key=None)


async def test_a_target_whose_version_goes_away_is_answered_for_by_the_default_and_logged_once(tmp_path: Path) -> None:
    world = World(tmp_path, fixed("tf@1"))
    await world.remove(1)
    with capture_logs() as logs:
        assert [world.plan() for _ in range(3)] == ["tf@2"] * 3
    assert [(line["event"], line["target"]) for line in logs] == [("policy_target_gone", "tf@1")]
    assert [str(target) for target in world.router.missing("digits", fixed("tf@1"))] == ["tf@1"]


@pytest.mark.parametrize("policy", [shadow("torch@1", "tf"), shadow("torch", "tf@1")], ids=["primary", "shadow"])
async def test_a_pair_of_which_one_is_gone_is_not_compared_and_counted(tmp_path: Path, policy: Policy) -> None:
    world = World(tmp_path, policy)
    await world.remove(1)
    assert world.plan() == "torch@2"
    assert world.dropped("no_version") == 1
    assert world.dropped("queue_full") == 0


def test_a_shadow_that_takes_another_input_than_the_default_by_now_is_not_sent(tmp_path: Path) -> None:
    world = World(tmp_path, shadow("torch", "tf@3"))
    assert world.plan() == "torch@2"
    assert world.dropped("other_input") == 1


def test_a_policy_for_a_version_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    world = World(tmp_path, fixed("tf"))
    with pytest.raises(Conflict, match=r"no version for tf@9\. It has: 1, 2, 3\."):
        world.router.check("digits", shadow("torch@1", "tf@9"))
    with pytest.raises(ModelNotFound, match="There is no model 'cats'"):
        world.router.check("cats", fixed("tf"))
    world.router.check("digits", shadow("torch@1", "tf@2"))


def test_versions_with_different_inputs_are_neither_shadowed_nor_compared(tmp_path: Path) -> None:
    router = World(tmp_path, fixed("tf")).router
    with pytest.raises(Conflict, match="differ in their input"):
        router.check("digits", shadow("torch@1", "torch@3"))
    with pytest.raises(InvalidParameter, match="differ in their input"):
        router.pair("digits", TargetPair.parse("torch@1,torch@3"), version=None)


def test_a_canary_between_versions_with_different_inputs_is_refused_unless_it_takes_no_samples(tmp_path: Path) -> None:
    router = World(tmp_path, fixed("tf")).router
    with pytest.raises(Conflict, match="differ in their input"):
        router.check("digits", canary("torch@1", "torch@3"))
    router.check("digits", canary("torch@1", "torch@3", sample_rate=0, guards={"agreement": None}))


def test_a_canary_whose_targets_are_the_same_version_now_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="are both version 2 of digits on torch now"):
        World(tmp_path, fixed("tf")).router.check("digits", canary("torch", "torch@2"))


async def test_the_fastest_of_the_targets_that_are_ready_and_there_answers(tmp_path: Path) -> None:
    world = World(tmp_path, fastest("torch", "tf", "tf@1"))
    runtimes: list[tuple[RuntimeName, int, float]] = [("torch", 2, 0.3), ("tf", 2, 0.2), ("tf", 1, 0.1)]
    for runtime, version, seconds in runtimes:
        world.health.set(runtime, ModelRef("digits", version), ModelStatus("ready"))
        world.latencies.answered(runtime, ModelRef("digits", version), seconds)
    assert world.plan() == "tf@1"
    await world.remove(1)
    assert world.plan() == "tf@2"
    world.health.set("tf", ModelRef("digits", 2), ModelStatus("unavailable"))
    assert world.plan() == "torch@2"
    world.health.set("torch", ModelRef("digits", 2), ModelStatus("unavailable"))
    assert world.plan() == "tf@2"  # nobody is ready: some worker may be back before this is known
