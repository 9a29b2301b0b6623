"""Policies through HTTP: shown, set, refused, followed, shared between gateways and remembered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain

MODEL = "/v1/models/digits"
ROUTING = f"{MODEL}/routing"
FIXED = {"policy": "fixed", "target": "tf@1"}
WEIGHTED = {"policy": "weighted", "weights": {"torch": 0.5, "tf@1": 0.5}}
SHADOW = {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 0.25}
FASTEST = {"policy": "fastest", "targets": ["torch", "tf@1"], "explore": 0.25}
FAILOVER = {"policy": "failover", "targets": ["tf", "torch"]}
HEDGED = {**FIXED, "failover": True, "hedge": {"after_ms": 20.0, "budget": 0.1}}
CANARY = {
    "policy": "canary",
    "from": "torch",
    "to": "tf",
    "steps": [0.5, 1.0],
    "hold_s": 3600.0,
    "sample_rate": 0.5,
    "guards": {"latency_ratio": 1.2, "error_rate": 0.05, "agreement": 0.9},
}
PICTURE = {"image": encode(plain(7))}

Put = Callable[..., httpx.Response]


@pytest.fixture
def put(client: httpx.Client, tmp_path: Path) -> Put:
    """Sets a policy with the admin key."""

    def put(policy: object, path: str = ROUTING, through: httpx.Client = client) -> httpx.Response:
        key = (tmp_path / "admin.key").read_text().strip()
        return through.put(path, json=policy, headers={"authorization": f"Bearer {key}"})

    return put


def answered(client: httpx.Client, key: str | None = None, **params: object) -> str:
    """The target that answers."""
    headers = {} if key is None else {"x-tandem-key": key}
    answer = client.post(f"{MODEL}/predict", files=PICTURE, params=params, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return f"{answer.json()['runtime']}@{answer.json()['version']}"


@pytest.mark.parametrize("runtime", ["torch", "tf"])
def test_without_a_policy_the_default_runtime_is_the_one(start_gateway: StartGateway, runtime: str) -> None:
    client = start_gateway(default_runtime=runtime)
    assert client.get(ROUTING).json() == {
        "policy": "fixed", "target": runtime, "model": "digits", "revision": 0, "updated": None, "missing": [],
        "history": [],
    }  # fmt: skip
    assert answered(client) == f"{runtime}@2"


@pytest.mark.parametrize("policy", [FIXED, WEIGHTED, SHADOW, FASTEST, CANARY, FAILOVER, HEDGED], ids=str)
def test_what_is_set_is_in_force_and_shown(client: httpx.Client, put: Put, policy: dict[str, Any]) -> None:
    answer = put(policy)
    assert answer.status_code == 200, answer.text
    assert answer.json() == client.get(ROUTING).json()
    assert policy.items() <= answer.json().items()
    assert answer.json()["revision"] == 1
    assert datetime.fromisoformat(answer.json()["updated"]).tzinfo is not None
    assert client.get("/v1/models/shapes/routing").json()["revision"] == 0


@pytest.mark.parametrize(
    ("policy", "status", "code", "says"),
    [
        (
            {"policy": "cheapest"},
            422,
            "invalid_parameter",
            "'fixed', 'weighted', 'shadow', 'fastest', 'failover', 'canary'",
        ),
        ({"policy": "fixed"}, 422, "invalid_parameter", "target"),
        ({"policy": "fixed", "target": "onnx"}, 422, "invalid_parameter", "Targets are torch and tf"),
        ({**FIXED, "rate": 1}, 422, "invalid_parameter", "rate"),
        (
            {"policy": "weighted", "weights": {"torch": 0}},
            422,
            "invalid_parameter",
            "Give at least one target a weight",
        ),
        ({"policy": "weighted", "weights": {"cats": 1}}, 422, "invalid_parameter", "'cats' is no target"),
        ({**SHADOW, "sample_rate": 2}, 422, "invalid_parameter", "sample_rate"),
        ({"policy": "fixed", "target": "tf@9"}, 409, "conflict", "It has: 1, 2."),
        ({**FASTEST, "targets": ["torch"]}, 422, "invalid_parameter", "targets"),
        ({**FAILOVER, "targets": ["tf", "tf@1"]}, 422, "invalid_parameter", "Name a target of each runtime"),
        ({**FAILOVER, "targets": ["tf", "torch@9"]}, 409, "conflict", "It has: 1, 2."),
        ({**FAILOVER, "failover": False}, 422, "invalid_parameter", "failover"),
        ({**FIXED, "hedge": {"budget": 2}}, 422, "invalid_parameter", "budget"),
        ({**CANARY, "to": "torch"}, 422, "invalid_parameter", "from and to are the same target"),
        ({**CANARY, "steps": [0.5, 0.1]}, 422, "invalid_parameter", "the steps must rise"),
        ({**CANARY, "sample_rate": 0}, 422, "invalid_parameter", "without samples there is no agreement"),
        ({**CANARY, "from": "tf", "to": "tf@2"}, 409, "conflict", "are both version 2 of digits on tf now"),
        ({**CANARY, "to": "tf@9"}, 409, "conflict", "It has: 1, 2."),
        ([], 422, "invalid_parameter", ""),
    ],
    ids=str,
)
def test_a_bad_policy_is_refused_with_what_is_wrong_and_changes_nothing(
    client: httpx.Client, put: Put, policy: object, status: int, code: str, says: str
) -> None:
    before = put(WEIGHTED).json()
    answer = put(policy)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert says in answer.json()["detail"]
    assert not answer.json()["detail"].endswith("..")
    assert client.get(ROUTING).json() == before


def test_changes_need_the_admin_key_and_a_model_that_is_there(client: httpx.Client, put: Put) -> None:
    assert client.put(ROUTING, json=FIXED).json()["code"] == "unauthenticated"
    assert put(FIXED, "/v1/models/cats/routing").json()["code"] == "model_not_found"
    assert client.get("/v1/models/cats/routing").json()["code"] == "model_not_found"
    assert client.get(ROUTING).json()["revision"] == 0


def test_requests_follow_the_policy_unless_they_name_something_else(client: httpx.Client, put: Put) -> None:
    put(FIXED)
    assert answered(client) == "tf@1"
    assert answered(client, runtime="torch") == "torch@2"
    assert answered(client, version=2) == "tf@2"


def test_the_same_key_is_answered_by_the_same_target_and_others_are_spread(client: httpx.Client, put: Put) -> None:
    put(WEIGHTED)
    keys = [f"customer {number}" for number in range(12)]
    first = {key: answered(client, key) for key in keys}
    assert {key: answered(client, key) for key in keys} == first
    assert set(first.values()) == {"torch@2", "tf@1"}
    assert set(Counter(answered(client) for _ in range(40))) == {"torch@2", "tf@1"}


def test_a_key_that_is_too_long_is_refused(client: httpx.Client) -> None:
    answer = client.post(f"{MODEL}/predict", files=PICTURE, headers={"x-tandem-key": "k" * 257})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_every_gateway_on_the_database_follows_within_a_second_and_remembers(
    client: httpx.Client, put: Put, start_gateway: StartGateway
) -> None:
    other = start_gateway()
    set_s = time.monotonic()
    answer = put(FIXED).json()
    while other.get(ROUTING).json() != answer:
        assert time.monotonic() - set_s < 5  # a second, on a machine that is not busy
    assert answered(other) == "tf@1"
    assert start_gateway().get(ROUTING).json() == answer


def test_with_a_database_that_is_broken_requests_are_answered_and_a_policy_is_refused(
    start_gateway: StartGateway, put: Put, tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    client = start_gateway(database_url=f"sqlite:///{tmp_path / 'broken.db'}")
    assert answered(client) == "torch@2"
    answer = put(FIXED, through=client)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers
    assert str(tmp_path) not in answer.text
    assert answered(client) == "torch@2"


def test_a_version_that_goes_away_is_shown_as_missing_and_the_default_answers(
    client: httpx.Client, put: Put, tmp_path: Path
) -> None:
    put(FIXED)
    key = (tmp_path / "admin.key").read_text().strip()
    client.delete(f"{MODEL}/versions/1", headers={"authorization": f"Bearer {key}"})
    assert client.get(ROUTING).json()["missing"] == ["tf@1"]
    assert answered(client) == "tf@2"


def test_the_api_describes_each_policy(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    body = api["paths"]["/v1/models/{model}/routing"]["put"]["requestBody"]["content"]["application/json"]
    names = {"fixed", "weighted", "shadow", "fastest", "failover", "canary"}
    assert set(body["examples"]) == set(body["schema"]["discriminator"]["mapping"]) == names
    assert "pattern" in api["components"]["schemas"]["Fixed"]["properties"]["target"]


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_compare_asks_in_either_order_and_answers_in_one(client: httpx.Client, fakes: Fakes, mode: str) -> None:
    asked: list[object] = []
    for name, fake in fakes.items():
        fake.called = lambda name=name: asked.append(name)
    for _ in range(40):
        answer = client.post(f"{MODEL}/compare", files=PICTURE, params={"mode": mode}).json()
        assert list(answer["runtimes"]) == ["torch", "tf"]
        assert answer["agreement"]["agree"] is True
    assert {tuple(asked[start : start + 2]) for start in range(0, 80, 2)} == {("torch", "tf"), ("tf", "torch")}


def test_in_sequential_mode_one_waits_for_the_other_and_its_time_is_its_own(client: httpx.Client, fakes: Fakes) -> None:
    under_way: list[int] = []
    for fake in fakes.values():
        fake.called = lambda: under_way.append(sum(each.running for each in fakes.values()))
    answer = client.post(f"{MODEL}/compare", files=PICTURE, params={"mode": "sequential"}).json()
    assert under_way == [1, 1]
    for runtime in answer["runtimes"].values():
        timing = runtime["timing_ms"]
        assert sum(timing.values()) - timing["total"] == pytest.approx(timing["total"], rel=0.05)
