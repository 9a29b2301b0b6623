"""The policy `fastest` through HTTP: traffic goes where answers come soonest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import RuntimeFailed
from gateway.runtimes.base import ModelStatus
from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain
from tests.support.waiting import wait_until

MODEL = "/v1/models/digits"
PICTURE = {"image": encode(plain(7))}


@pytest.fixture
def client(start_gateway: StartGateway, tmp_path: Path) -> httpx.Client:
    """A gateway on which both runtimes are ready, and the faster one is to answer."""
    client = start_gateway()

    def ready() -> bool:
        states = client.get("/readyz").json()["models"]["digits"].values()
        return [state["state"] for state in states] == ["ready", "ready"]

    wait_until(ready, lambda: client.get("/readyz").text, pause_s=0.02)
    key = (tmp_path / "admin.key").read_text().strip()
    policy = {"policy": "fastest", "targets": ["torch", "tf"], "explore": 0}
    answer = client.put(f"{MODEL}/routing", json=policy, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    return client


def ask(client: httpx.Client, times: int) -> list[str]:
    """Who answers, or the code of the error."""
    answers = [client.post(f"{MODEL}/predict", files=PICTURE).json() for _ in range(times)]
    return [answer.get("runtime") or answer["code"] for answer in answers]


def expected_ms(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{MODEL}/routing").json()["expected_ms"]
    return found


def test_each_target_is_measured_and_then_the_one_that_answers_soonest_is_chosen(
    client: httpx.Client, fakes: Fakes
) -> None:
    assert expected_ms(client) == {"torch": None, "tf": None}
    fakes["torch"].error = RuntimeFailed("It broke.")
    assert ask(client, 2) == ["runtime_failed", "tf"]
    fakes["torch"].error = None
    assert ask(client, 20) == ["tf"] * 20
    known = expected_ms(client)
    assert known["torch"] == pytest.approx(10_000, rel=0.05)  # a failure counts as the deadline
    assert 0 < known["tf"] < 5000


def test_compare_and_named_requests_measure_too(client: httpx.Client) -> None:
    client.post(f"{MODEL}/compare", files=PICTURE).raise_for_status()
    assert all(0 < value < 5000 for value in expected_ms(client).values())


def test_a_target_that_is_not_ready_answers_nobody(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].status_now = ModelStatus("unavailable", "It is away.")

    def known() -> bool:
        return bool(client.get("/readyz").json()["models"]["digits"]["torch"]["state"] == "unavailable")

    wait_until(known, lambda: client.get("/readyz").text, pause_s=0.02)
    assert ask(client, 20) == ["tf"] * 20
    assert fakes["torch"].seen == []
