"""The short form of the deadlines' proof, and how it is judged. How many milliseconds is `make prove-deadlines`'s."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from loadtests.deadlines.phases import AT_ONCE, Outcome
from loadtests.prove_deadlines import gateway_of, prove
from tests.support.stack import HOST, free_ports


def test_of_a_worker_that_never_answers_nobody_waits_past_the_deadline_and_hanging_up_ends_the_call(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    address = f"{HOST}:{port}"
    with gateway_of(tmp_path, address) as gateway:
        outcomes = asyncio.run(prove(gateway, address, AT_ONCE))
    for each in outcomes:
        assert each.faults(most_s=1.0) == [], (each, gateway.output.read_text())


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        pytest.param(Outcome("deadline", "tf", [-0.001, 0.099]), None, id="all in time"),
        pytest.param(Outcome("deadline", "tf", [0.001, 0.101]), "101 ms, at most 100 may be", id="one too late"),
        pytest.param(Outcome("deadline", "tf", [0.001], Counter({"500": 2})), "2 × 500", id="other answers"),
        pytest.param(Outcome("deadline", "tf"), "nothing was measured", id="nothing"),
    ],
)
def test_what_is_not_as_it_is_promised_is_said(seen: Outcome, fault: str | None) -> None:
    assert seen.faults() == ([] if fault is None else [fault])
