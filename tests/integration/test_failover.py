"""Failover on the running stack: a worker is killed while requests come, and no client gets an error."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Put
from tests.support.asking import count
from tests.support.stack import ROOT, Stack

SEVEN = {"image": (ROOT / "models" / "digits" / "samples" / "7.png").read_bytes()}
PREDICT = "/v1/models/digits/predict"


@pytest.mark.parametrize(
    ("first", "other", "hedge"), [("torch", "tf", None), ("tf", "torch", {})], ids=["torch", "tf with a hedge"]
)
def test_a_worker_is_killed_the_other_answers_and_the_first_one_is_taken_again_when_it_is_back(
    stack: Stack, client: httpx.Client, put: Put, first: str, other: str, hedge: dict[str, Any] | None
) -> None:
    stack.wait_until_ready()
    put({"policy": "failover", "targets": [first, other], "hedge": hedge})
    answers: list[dict[str, Any]] = []

    def ask() -> dict[str, Any]:
        answers.append(client.post(PREDICT, files=SEVEN).raise_for_status().json())
        return answers[-1]

    stack.wait_until(lambda: ask()["runtime"] == first)
    answers.clear()
    counted = f'tandem_failovers_total{{from="{first}",to="{other}"}}'
    before = count(client, counted)

    os.kill(stack.pid(first), signal.SIGKILL)
    stack.wait_until(lambda: "failover" in ask())
    assert answers[-1]["runtime"] == other
    stack.wait_until(lambda: ask()["runtime"] == first)

    failed_over = [each for each in answers if "failover" in each]
    assert {each["runtime"] for each in failed_over} == {other}
    assert {each["failover"]["from"] for each in failed_over} == {first}
    assert count(client, counted) - before == len(failed_over)
    assert {each["results"][0]["predictions"][0]["label"] for each in answers} == {"7"}
