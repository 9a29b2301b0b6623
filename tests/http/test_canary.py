"""Canaries through HTTP: begun, followed by requests, moved by the gateway itself, and shown."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from gateway.errors import RuntimeFailed
from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain
from tests.support.waiting import wait_until

MODEL = "/v1/models/digits"
ROUTING = f"{MODEL}/routing"
CANARY: dict[str, Any] = {"policy": "canary", "from": "torch", "to": "tf@1", "steps": [0.5, 1.0], "sample_rate": 1}
PICTURE = {"image": encode(plain(7))}


def begin(client: httpx.Client, var: Path) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {(var / 'admin.key').read_text().strip()}"}
    answer = client.put(ROUTING, json=CANARY, headers=headers)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def answered(client: httpx.Client, key: str) -> str:
    answer = client.post(f"{MODEL}/predict", files=PICTURE, headers={"x-tandem-key": key}).json()
    return f"{answer['runtime']}@{answer['version']}"


def test_a_canary_that_fails_is_rolled_back_by_the_gateways_themselves_and_all_follow_and_show_it(
    start_gateway: StartGateway, fakes: Fakes, tmp_path: Path
) -> None:
    one, other = start_gateway(), start_gateway()
    shown = begin(one, tmp_path)
    progress = shown["progress"]
    assert (progress["state"], progress["step"], progress["share"]) == ("running", 0, 0.5)
    assert [event["action"] for event in shown["history"]] == ["start"]
    keys = [f"customer {number}" for number in range(20)]
    wait_until(lambda: other.get(ROUTING).json()["revision"] == 1, lambda: other.get(ROUTING).text, pause_s=0.05)
    first = {key: answered(one, key) for key in keys}
    assert first == {key: answered(other, key) for key in keys}
    assert set(Counter(first.values())) == {"torch@2", "tf@1"}

    fakes["tf"].error = RuntimeFailed("It broke.")
    for number in range(100):
        one.post(f"{MODEL}/predict", files=PICTURE, headers={"x-tandem-key": f"late {number}"})
    for gateway in (one, other):
        wait_until(
            lambda client=gateway: client.get(ROUTING).json()["progress"]["state"] == "rolled_back",  # type: ignore[misc]
            lambda client=gateway: client.get(ROUTING).text,  # type: ignore[misc]
            patience_s=60,
            pause_s=0.05,
        )
        shown = gateway.get(ROUTING).json()
        assert re.fullmatch(r"tf@1 failed \d+ of its last \d+ requests", shown["progress"]["why"])
        assert shown["progress"]["share"] == 0
        assert [event["action"] for event in shown["history"]] == ["roll_back", "start"]
        assert {answered(gateway, key) for key in keys} == {"torch@2"}
    metrics = [gateway.get("/metrics").text for gateway in (one, other)]
    moves = 'tandem_canary_decisions_total{action="roll_back",model="digits"}'
    assert sorted(f"{moves} 1.0" in text for text in metrics) == [False, True]


def test_a_request_of_a_canary_is_also_shown_to_the_other_target(start_gateway: StartGateway, tmp_path: Path) -> None:
    client = start_gateway()
    begin(client, tmp_path)
    for number in range(20):
        answered(client, f"customer {number}")

    def shadows(runtime: str, version: int) -> bool:
        labels = f'model="digits",outcome="ok",role="shadow",runtime="{runtime}",version="{version}"'
        return f"tandem_requests_total{{{labels}}}" in client.get("/metrics").text

    wait_until(lambda: shadows("torch", 2) and shadows("tf", 1), lambda: client.get("/metrics").text, pause_s=0.05)
