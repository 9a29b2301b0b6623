"""A shadow policy on the running stack: measured on both runtimes, and remembered when the gateway is killed."""

from __future__ import annotations

import os
import signal

import httpx

from tests.integration.conftest import Put
from tests.support.asking import count
from tests.support.stack import ROOT, Stack

SEVEN = {"image": (ROOT / "models" / "digits" / "samples" / "7.png").read_bytes()}
ROUTING = "/v1/models/digits/routing"
PREDICT = "/v1/models/digits/predict"


def test_torch_answers_tf_shadows_both_are_measured_and_the_policy_outlives_the_gateway(
    stack: Stack, client: httpx.Client, put: Put
) -> None:
    stack.wait_until_ready()
    shadowed = 'tandem_requests_total{model="digits",outcome="ok",role="shadow",runtime="tf",version="1"}'
    answered = 'tandem_requests_total{model="digits",outcome="ok",role="primary",runtime="torch",version="1"}'
    agreed = 'tandem_agreement_total{model="digits",outcome="agree"}'
    kept = put({"policy": "shadow", "primary": "torch", "shadow": "tf"})

    before = {series: count(client, series) for series in (shadowed, answered, agreed)}
    for _ in range(10):
        assert client.post(PREDICT, files=SEVEN).raise_for_status().json()["runtime"] == "torch"
    stack.wait_until(lambda: count(client, agreed) - before[agreed] == 10)
    assert {series: count(client, series) - before[series] for series in before} == dict.fromkeys(before, 10)
    assert count(client, 'tandem_stage_seconds_count{model="digits",role="shadow",runtime="tf",stage="rpc"') > 0

    os.kill(stack.pid("gateway"), signal.SIGKILL)
    stack.wait_until(lambda: not stack.states())
    stack.wait_until_ready()
    assert client.get(ROUTING).json() == kept
    assert client.post(PREDICT, files=SEVEN).raise_for_status().json()["runtime"] == "torch"
    stack.wait_until(lambda: count(client, agreed) == 1)
