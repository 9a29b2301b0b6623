"""Failover and hedging through HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import RuntimeFailed, RuntimeUnavailable
from tests.conftest import Fakes, StartGateway
from tests.support.asking import count
from tests.support.pictures import encode, plain
from tests.support.waiting import wait_until

MODEL = "/v1/models/digits"
PICTURE = {"image": encode(plain(7))}
FAILOVER = {"policy": "failover", "targets": ["torch", "tf"]}

Start = Callable[[dict[str, Any]], httpx.Client]


@pytest.fixture
def start(start_gateway: StartGateway, tmp_path: Path) -> Start:
    """A client of a gateway on which both runtimes are ready, with this policy."""

    def start(policy: dict[str, Any]) -> httpx.Client:
        client = start_gateway()

        def ready() -> bool:
            states = client.get("/readyz").json()["models"]["digits"].values()
            return [state["state"] for state in states] == ["ready", "ready"]

        wait_until(ready, lambda: client.get("/readyz").text, pause_s=0.02)
        key = (tmp_path / "admin.key").read_text().strip()
        answer = client.put(f"{MODEL}/routing", json=policy, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200, answer.text
        return client

    return start


def predict(client: httpx.Client, **query: str | int) -> httpx.Response:
    return client.post(f"{MODEL}/predict", files=PICTURE, params=query)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(FAILOVER, id="policy"),
        pytest.param({"policy": "fixed", "target": "torch", "failover": True}, id="option"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RuntimeUnavailable("It is away."), id="unavailable"),
        pytest.param(RuntimeFailed("It broke."), id="failed"),
    ],
)
def test_the_other_runtime_answers_where_the_first_fails_and_the_answer_says_so(
    start: Start, fakes: Fakes, policy: dict[str, Any], error: RuntimeFailed | RuntimeUnavailable
) -> None:
    client = start(policy)
    assert "failover" not in predict(client).json()
    fakes["torch"].error = error
    answer = predict(client)
    assert answer.status_code == 200
    assert answer.json()["runtime"] == "tf"
    assert answer.json()["failover"] == {"from": "torch", "code": error.code}
    assert count(client, 'tandem_failovers_total{from="torch",to="tf"}') == 1
    assert count(client, 'tandem_requests_total{model="digits",outcome="ok",role="failover"') == 1


def test_both_fail_once_each_and_the_second_ones_error_is_the_answer(start: Start, fakes: Fakes) -> None:
    client = start(FAILOVER)
    fakes["torch"].seen.clear()
    fakes["tf"].seen.clear()
    fakes["torch"].error, fakes["tf"].error = RuntimeUnavailable("It is away."), RuntimeFailed("It broke.")
    assert predict(client).json()["code"] == "runtime_failed"
    assert (len(fakes["torch"].seen), len(fakes["tf"].seen)) == (1, 1)


def test_a_runtime_that_hangs_is_left_in_time_for_the_other_one(start: Start, fakes: Fakes) -> None:
    client = start(FAILOVER)
    fakes["torch"].hold = asyncio.Event()
    answer = predict(client, timeout_ms=4000).json()
    assert answer["failover"] == {"from": "torch", "code": "deadline_exceeded"}
    assert fakes["torch"].running == 0


def test_a_request_that_names_its_runtime_is_answered_by_no_other(start: Start, fakes: Fakes) -> None:
    client = start(FAILOVER)
    fakes["tf"].seen.clear()
    fakes["torch"].error = RuntimeUnavailable("It is away.")
    assert predict(client, runtime="torch").status_code == 503
    assert fakes["tf"].seen == []


def test_a_late_request_is_hedged_and_the_overtaken_call_cancelled(start: Start, fakes: Fakes) -> None:
    client = start({"policy": "fixed", "target": "torch", "hedge": {"after_ms": 1, "budget": 1}})
    fakes["torch"].hold = asyncio.Event()
    answer = predict(client)
    assert answer.status_code == 200
    assert answer.json()["runtime"] == "tf"
    assert "failover" not in answer.json()
    assert fakes["torch"].running == 0
    assert count(client, 'tandem_hedges_total{from="torch",outcome="won",to="tf"}') == 1


def test_what_is_shown_of_a_policy_without_options_is_as_it_was(start: Start) -> None:
    shown = start({"policy": "fixed", "target": "tf"}).get(f"{MODEL}/routing").json()
    assert not {"failover", "hedge"} & set(shown)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param({"policy": "failover", "targets": ["torch", "torch@2"]}, id="one runtime"),
        pytest.param({"policy": "failover", "targets": ["torch"]}, id="one target"),
        pytest.param({"policy": "fixed", "target": "torch", "hedge": {"budget": 0}}, id="no budget"),
        pytest.param(FAILOVER | {"failover": True}, id="twice"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(client: httpx.Client, tmp_path: Path, policy: dict[str, Any]) -> None:
    key = (tmp_path / "admin.key").read_text().strip()
    answer = client.put(f"{MODEL}/routing", json=policy, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 422, answer.text
