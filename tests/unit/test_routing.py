"""Policies and targets by themselves: what is accepted, and whom they choose."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.routing import Canary, Failover, Fastest, Policy, Progress, Route, Shadow, Target, Weighted

POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)
TORCH, TF = Target("torch"), Target("tf")
CHANCE = random.Random(1)  # noqa: S311


@dataclass
class Moment:
    progress: Progress | None = None
    expected: Mapping[Target, float] = field(default_factory=dict)
    unready: Collection[Target] = ()
    wanting: list[Target] = field(default_factory=list)

    def ready(self, target: Target) -> bool:
        return target not in self.unready

    def expected_s(self, target: Target) -> float | None:
        return self.expected.get(target)

    def due(self, target: Target) -> bool:
        if target in self.wanting:
            self.wanting.remove(target)
            return True
        return False


NOW = Moment()


@pytest.mark.parametrize(
    ("text", "target"), [("torch", TORCH), ("tf", TF), ("torch@2", Target("torch", 2)), ("tf@10", Target("tf", 10))]
)
def test_a_target_is_read_and_written_alike(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["", "onnx", "torch@", "torch@0", "tf@-1", "tf@01", "Torch", "torch@2\n", "tf@1e3", 7])
def test_what_is_no_target_is_refused_with_what_is(text: object) -> None:
    with pytest.raises(ValueError, match="Targets are torch and tf"):
        Target.parse(text)


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "fixed", "target": "torch@2"},
        {"policy": "weighted", "weights": {"torch": 0.9, "tf@2": 0.1}},
        {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 0.5, "control_rate": 0.1},
        {"policy": "fastest", "targets": ["torch", "tf@2"], "explore": 0.1},
        {
            "policy": "canary",
            "from": "torch",
            "to": "tf@2",
            "steps": [0.5, 1.0],
            "hold_s": 60.0,
            "sample_rate": 0.2,
            "guards": {"latency_ratio": 1.5, "error_rate": 0.02, "agreement": None},
        },
        {"policy": "failover", "targets": ["torch@1", "tf@2"]},
        {"policy": "fixed", "target": "torch", "failover": True, "hedge": {"after_ms": None, "budget": 0.05}},
        {"policy": "failover", "targets": ["tf", "torch"], "hedge": {"after_ms": 20.0, "budget": 0.1}},
    ],
    ids=lambda policy: " ".join(map(str, policy)),
)
def test_a_policy_survives_being_kept_as_json(policy: dict[str, Any]) -> None:
    read = POLICY.validate_python(policy)
    assert read.model_dump(mode="json") == policy
    assert POLICY.validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "cheapest"},
        {"target": "torch"},
        {"policy": "fixed"},
        {"policy": "fixed", "target": "torch", "sample_rate": 1},
        {"policy": "weighted", "weights": {}},
        {"policy": "weighted", "weights": {"torch": 0, "tf": 0}},
        {"policy": "weighted", "weights": {"torch": -1, "tf": 2}},
        {"policy": "weighted", "weights": {"torch": float("nan")}},
        {"policy": "weighted", "weights": {"torch": 1001}},
        {"policy": "weighted", "weights": {f"tf@{version}": 1 for version in range(1, 18)}},
        {"policy": "weighted", "weights": {"cats": 1}},
        {"policy": "shadow", "primary": "torch"},
        {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 1.1},
        {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": float("nan")},
        {"policy": "fastest"},
        {"policy": "fastest", "targets": ["torch"]},
        {"policy": "fastest", "targets": ["torch", "torch"]},
        {"policy": "fastest", "targets": ["torch", "tf"], "explore": 1.1},
        {"policy": "failover"},
        {"policy": "failover", "targets": ["torch"]},
        {"policy": "failover", "targets": ["torch", "tf", "torch@1"]},
        {"policy": "failover", "targets": ["torch@1", "torch@2"]},
        {"policy": "failover", "targets": ["torch", "tf"], "failover": False},
        {"policy": "fixed", "target": "torch", "hedge": {"after_ms": 0}},
        {"policy": "fixed", "target": "torch", "hedge": {"budget": 0}},
        {"policy": "fixed", "target": "torch", "hedge": {"budget": 1.1}},
        {"policy": "fixed", "target": "torch", "hedge": {"times": 2}},
        {"policy": "fixed", "target": "torch", "hedge": True},
        {"policy": "canary", "to": "tf"},
        {"policy": "canary", "from_": "torch", "to": "tf"},
        {"policy": "canary", "from": "tf", "to": "tf"},
        {"policy": "canary", "from": "torch", "to": "tf", "steps": []},
        {"policy": "canary", "from": "torch", "to": "tf", "steps": [0, 1]},
        {"policy": "canary", "from": "torch", "to": "tf", "steps": [0.5, 0.5, 1]},
        {"policy": "canary", "from": "torch", "to": "tf", "steps": [0.5, 0.1, 1]},
        {"policy": "canary", "from": "torch", "to": "tf", "steps": [0.1, 0.5]},
        {"policy": "canary", "from": "torch", "to": "tf", "hold_s": 0.5},
        {"policy": "canary", "from": "torch", "to": "tf", "hold_s": float("inf")},
        {"policy": "canary", "from": "torch", "to": "tf", "sample_rate": 0},
        {"policy": "canary", "from": "torch", "to": "tf", "guards": {"p99": 1}},
        {"policy": "canary", "from": "torch", "to": "tf", "guards": {"latency_ratio": None}},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        POLICY.validate_python(policy)


def test_what_is_off_is_not_kept_so_that_a_policy_is_read_by_gateways_that_do_not_know_it() -> None:
    off = {"policy": "fixed", "target": "torch", "failover": False, "hedge": None}
    assert POLICY.validate_python(off).model_dump(mode="json") == {"policy": "fixed", "target": "torch"}
    assert not POLICY.validate_python({"policy": "fixed", "target": "torch"}).fails_over


@pytest.mark.parametrize(
    ("unready", "route"),
    [
        ([], Route(TORCH, other=TF)),
        ([TF], Route(TORCH, other=TF)),
        ([TORCH], Route(TF, other=TORCH)),
        ([TORCH, TF], Route(TORCH, other=TF)),
    ],
    ids=["both ready", "second not", "first not", "none"],
)
def test_the_first_target_that_is_ready_answers_and_the_other_one_takes_over(
    unready: Collection[Target], route: Route
) -> None:
    policy = Failover.model_validate({"policy": "failover", "targets": ["torch", "tf"]})
    assert policy.route(None, CHANCE, Moment(unready=unready)) == route
    assert policy.fails_over


def weighted(**weights: float) -> Weighted:
    return Weighted(policy="weighted", weights={Target.parse(name): weight for name, weight in weights.items()})


def shares(policy: Weighted, keys: list[str | None]) -> dict[Target, float]:
    count = Counter(policy.route(key, CHANCE, NOW).target for key in keys)
    return {target: count[target] / len(keys) for target in policy.weights}


@pytest.mark.parametrize("keyed", [False, True], ids=["by chance", "by key"])
def test_each_target_gets_its_share_of_the_weights_sum(keyed: bool) -> None:
    keys: list[str | None] = [f"customer {number}" if keyed else None for number in range(20_000)]
    assert shares(weighted(torch=3, tf=1), keys) == pytest.approx({TORCH: 0.75, TF: 0.25}, abs=0.015)
    assert shares(weighted(torch=1, tf=0), keys) == {TORCH: 1.0, TF: 0.0}


def test_a_key_always_goes_to_the_same_target_whatever_the_order_of_the_weights() -> None:
    one, other = weighted(torch=0.5, tf=0.5), weighted(tf=0.5, torch=0.5)
    for number in range(200):
        key = f"customer {number}"
        chosen = one.route(key, CHANCE, NOW)
        assert one.route(key, CHANCE, NOW) == other.route(key, CHANCE, NOW) == chosen


def test_where_a_key_goes_does_not_change_between_versions_of_tandem() -> None:
    """Else an update would move everyone."""
    chosen = [str(weighted(torch=0.5, tf=0.5).route(f"{n}", CHANCE, NOW).target) for n in range(8)]
    assert chosen == ["tf", "torch", "torch", "tf", "tf", "torch", "tf", "tf"]


def test_when_weights_change_only_keys_of_the_target_that_loses_move() -> None:
    before, after = weighted(torch=0.9, tf=0.1), weighted(torch=0.5, tf=0.5)
    moves = Counter(
        (str(before.route(key, CHANCE, NOW).target), str(after.route(key, CHANCE, NOW).target))
        for key in (f"customer {number}" for number in range(5000))
    )
    assert moves["tf", "torch"] == 0
    assert moves["torch", "tf"] / 5000 == pytest.approx(0.4, abs=0.03)


def test_shadows_are_sampled_at_their_rate_and_the_primary_is_always_the_same() -> None:
    policy = Shadow(policy="shadow", primary=TORCH, shadow=TF, sample_rate=0.3)
    routes = [policy.route(None, CHANCE, NOW) for _ in range(10_000)]
    assert {route.target for route in routes} == {TORCH}
    assert sum(route.shadow == TF for route in routes) / 10_000 == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, Route(TORCH)), (1.0, Route(TORCH, TF))], ids=["none", "all"])
def test_a_rate_of_0_shadows_none_and_1_shadows_all(rate: float, expected: Route) -> None:
    policy = Shadow(policy="shadow", primary=TORCH, shadow=TF, sample_rate=rate, control_rate=0)
    assert {policy.route(None, CHANCE, NOW) for _ in range(1000)} == {expected}


def test_of_the_shadowed_requests_a_share_asks_the_primary_again() -> None:
    policy = Shadow(policy="shadow", primary=TORCH, shadow=TF, sample_rate=0.5, control_rate=0.2)
    count = Counter(policy.route(None, CHANCE, NOW) for _ in range(20_000))
    shares = {route: count[route] / 20_000 for route in count}
    wanted = {Route(TORCH): 0.5, Route(TORCH, TF): 0.4, Route(TORCH, TF, control=True): 0.1}
    assert shares == pytest.approx(wanted, abs=0.02)


def fastest(*targets: Target, explore: float = 0.0) -> Fastest:
    return Fastest.model_validate({"policy": "fastest", "targets": targets, "explore": explore})


def test_the_target_with_the_least_expected_latency_answers_and_the_others_their_small_share() -> None:
    now, other = Moment(expected={TORCH: 0.2, TF: 0.1, Target("tf", 2): 0.3}), Target("tf", 2)
    assert {fastest(TORCH, TF).route(None, CHANCE, now) for _ in range(100)} == {Route(TF)}
    count = Counter(fastest(TORCH, TF, other, explore=0.1).route(None, CHANCE, now).target for _ in range(20_000))
    shares = {target: count[target] / 20_000 for target in count}
    assert shares == pytest.approx({TF: 0.9, TORCH: 0.05, other: 0.05}, abs=0.01)


def test_a_target_that_must_be_measured_comes_first_once() -> None:
    now = Moment(expected={TF: 0.1}, wanting=[TORCH])
    chosen = [str(fastest(TF, TORCH).route(None, CHANCE, now).target) for _ in range(3)]
    assert chosen == ["torch", "tf", "tf"]


def test_while_no_latency_is_known_all_targets_answer() -> None:
    assert {fastest(TF, TORCH).route(None, CHANCE, NOW).target for _ in range(100)} == {TF, TORCH}


def test_a_target_that_is_not_ready_is_neither_chosen_nor_measured_while_another_is() -> None:
    now = Moment(expected={TORCH: 0.2, TF: 0.1}, unready=[TF], wanting=[TF])
    assert {fastest(TORCH, TF, explore=0.5).route(None, CHANCE, now).target for _ in range(100)} == {TORCH}


def canary(steps: list[float], sample_rate: float = 0.1) -> Canary:
    return Canary.model_validate(
        {"policy": "canary", "from": "torch", "to": "tf", "steps": steps, "sample_rate": sample_rate}
    )


def at(step: int, state: Literal["running", "promoted", "rolled_back"] = "running") -> Moment:
    return Moment(Progress(step, 0.0, state, ""))


@pytest.mark.parametrize("keyed", [False, True], ids=["by chance", "by key"])
def test_a_canary_gets_the_share_of_its_step_and_a_sample_is_asked_of_both(keyed: bool) -> None:
    policy = canary([0.05, 0.25, 1.0])
    for step, share in enumerate(policy.steps):
        routes = [policy.route(f"customer {n}" if keyed else None, CHANCE, at(step)) for n in range(20_000)]
        assert sum(route.target == TF for route in routes) / 20_000 == pytest.approx(share, abs=0.01)
        for target, other in ((TF, TORCH), (TORCH, TF)):
            shadows = [route.shadow for route in routes if route.target == target]
            assert set(shadows) <= {None, other}
            if len(shadows) > 5000:
                assert shadows.count(other) / len(shadows) == pytest.approx(0.1, abs=0.02)


def test_a_key_that_a_canary_answers_stays_with_it_while_the_share_grows() -> None:
    policy = canary([0.01, 0.05, 0.25, 1.0])
    taken: set[str] = set()
    for step in range(4):
        now = {key for key in map(str, range(2000)) if policy.route(key, CHANCE, at(step)).target == TF}
        assert taken < now
        taken = now


@pytest.mark.parametrize(
    ("now", "target"),
    [(at(0, "rolled_back"), TORCH), (at(1, "promoted"), TF), (NOW, TORCH)],
    ids=["rolled back", "promoted", "not known"],
)
def test_a_canary_that_has_ended_or_is_not_known_yet_sends_all_one_way_and_samples_none(
    now: Moment, target: Target
) -> None:
    assert {canary([0.5, 1.0], 1.0).route(None, CHANCE, now) for _ in range(100)} == {Route(target)}
