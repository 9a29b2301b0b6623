"""The short form of the fault matrix: a few of its cells on the real workers. How soon is `make prove-faults`'s."""

from __future__ import annotations

import pytest

from loadtests.faults.cell import Cell, Outcome
from loadtests.prove_faults import prove
from tests.support.stack import Stack

pytestmark = pytest.mark.anyio

CELLS = (
    Cell("hung", "torch", "failover"),
    Cell("killed", "tf", "failover"),
    Cell("wrong type", "torch", "fixed"),
    Cell("port closed", "tf", "fixed"),
    Cell("errors", "torch", "two workers"),
)


async def test_a_worker_that_fails_costs_only_what_is_said_and_is_asked_again_once_it_is_back(stack: Stack) -> None:
    outcomes = await prove(stack, CELLS, hold_s=2.5)
    failures = {each.cell.name: {code for code in each.codes if code != "ok"} for each in outcomes}
    assert failures == {
        "hung, torch, failover": set(),
        "killed, tf, failover": set(),
        "wrong type, torch, fixed": {"runtime_failed"},
        "port closed, tf, fixed": {"runtime_unavailable"},
        "errors, torch, two workers": {"runtime_failed"},
    }
    for outcome in outcomes:
        assert outcome.recovered_s is not None, outcome.cell.name
        assert outcome.failed <= outcome.allowed, outcome.cell.name


def outcome(
    cell: Cell,
    *,
    failed: int = 0,
    longest_s: float = 1.0,
    back_s: float | None = 1.0,
    crashes: int = 0,
    seen: int = 0,
) -> Outcome:
    codes = {"ok": 50, "runtime_unavailable": failed}
    return Outcome(cell, codes, 3, 2.0, longest_s, back_s, crashes, seen)


FIXED, FAILOVER = Cell("hung", "tf", "fixed"), Cell("hung", "tf", "failover")
TWO = Cell("silent", "tf", "two workers")


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        pytest.param(outcome(FAILOVER), None, id="all is well"),
        pytest.param(outcome(FAILOVER, failed=3), None, id="those in flight failed"),
        pytest.param(outcome(FAILOVER, failed=4), "4 failed, at most 3 may", id="one more failed"),
        pytest.param(outcome(FIXED, failed=40), None, id="nobody else could answer"),
        pytest.param(outcome(FIXED), "the fault was none", id="nothing failed"),
        pytest.param(outcome(Cell("slow", "tf", "fixed")), None, id="slow is no failure"),
        pytest.param(outcome(FAILOVER, crashes=1), "1 answers of 500 or none", id="a fault of ours"),
        pytest.param(outcome(FAILOVER, longest_s=6.0), "after 6.0 s, the deadline was 4", id="an answer too late"),
        pytest.param(outcome(FAILOVER, back_s=5.1), "5.1 s after the worker was back", id="back too late"),
        pytest.param(outcome(TWO, failed=11), None, id="five made it known and three tried again"),
        pytest.param(outcome(TWO, failed=12), "12 failed, at most 11 may", id="one more than that"),
        pytest.param(outcome(TWO, seen=3), "it was not left out", id="not left out"),
        pytest.param(outcome(FAILOVER, back_s=None), "no good answer", id="never back"),
    ],
)
def test_the_matrix_says_what_is_not_as_it_is_promised(seen: Outcome, fault: str | None) -> None:
    assert len(seen.faults) == (fault is not None)
    assert fault is None or fault in seen.faults[0]
