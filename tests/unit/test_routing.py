"""Policies and targets by themselves: what is accepted, and whom they choose."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.routing import Policy, Route, Shadow, Target, Weighted

POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)
TORCH, TF = Target("torch"), Target("tf")
CHANCE = random.Random(1)  # noqa: S311


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
        {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 0.5},
    ],
    ids=lambda policy: policy["policy"],
)
def test_a_policy_survives_being_kept_as_json(policy: dict[str, Any]) -> None:
    read = POLICY.validate_python(policy)
    assert read.model_dump(mode="json") == policy
    assert POLICY.validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "fastest"},
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
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        POLICY.validate_python(policy)


def weighted(**weights: float) -> Weighted:
    return Weighted(policy="weighted", weights={Target.parse(name): weight for name, weight in weights.items()})


def shares(policy: Weighted, keys: list[str | None]) -> dict[Target, float]:
    count = Counter(policy.route(key, CHANCE).target for key in keys)
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
        chosen = one.route(key, CHANCE)
        assert one.route(key, CHANCE) == other.route(key, CHANCE) == chosen


def test_where_a_key_goes_does_not_change_between_versions_of_tandem() -> None:
    """Else an update would move everyone."""
    chosen = [str(weighted(torch=0.5, tf=0.5).route(f"{n}", CHANCE).target) for n in range(8)]
    assert chosen == ["tf", "torch", "torch", "tf", "tf", "torch", "tf", "tf"]


def test_when_weights_change_only_keys_of_the_target_that_loses_move() -> None:
    before, after = weighted(torch=0.9, tf=0.1), weighted(torch=0.5, tf=0.5)
    moves = Counter(
        (str(before.route(key, CHANCE).target), str(after.route(key, CHANCE).target))
        for key in (f"customer {number}" for number in range(5000))
    )
    assert moves["tf", "torch"] == 0
    assert moves["torch", "tf"] / 5000 == pytest.approx(0.4, abs=0.03)


def test_shadows_are_sampled_at_their_rate_and_the_primary_is_always_the_same() -> None:
    policy = Shadow(policy="shadow", primary=TORCH, shadow=TF, sample_rate=0.3)
    routes = [policy.route(None, CHANCE) for _ in range(10_000)]
    assert {route.target for route in routes} == {TORCH}
    assert sum(route.shadow == TF for route in routes) / 10_000 == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, Route(TORCH)), (1.0, Route(TORCH, TF))], ids=["none", "all"])
def test_a_rate_of_0_shadows_none_and_1_shadows_all(rate: float, expected: Route) -> None:
    policy = Shadow(policy="shadow", primary=TORCH, shadow=TF, sample_rate=rate)
    assert {policy.route(None, CHANCE) for _ in range(1000)} == {expected}
