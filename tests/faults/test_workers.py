"""The short form of the fault matrix: a few of its cells on the real workers. How soon is `make prove-faults`'s."""

from __future__ import annotations

import pytest

from loadtests.faults.cell import Cell, Outcome
from loadtests.prove_faults import prove
from tests.support.stack import Stack

pytestmark = pytest.mark.anyio

CELLS = {
    Cell("hung", "torch", "failover"): None,
    Cell("killed", "tf", "failover"): None,
    Cell("wrong type", "torch", "fixed"): "runtime_failed",
    Cell("port closed", "tf", "fixed"): "runtime_unavailable",
    Cell("errors", "torch", "two workers"): "runtime_failed",
}
"""And what some of the requests must be answered."""


async def test_a_worker_that_fails_costs_only_what_is_said_and_is_asked_again_once_it_is_back(stack: Stack) -> None:
    outcomes = await prove(stack, list(CELLS), hold_s=2.5, timeout_s=15.0)
    for each, code in zip(outcomes, CELLS.values(), strict=True):
        assert each.crashes == 0, each.cell.name
        assert each.failed <= each.allowed, each.cell.name
        assert each.recovered_s is not None, each.cell.name
        assert code is None or each.codes.get(code, 0) > 0, each.cell.name


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
    return Outcome(cell, codes, 4.0, 3, 2.0, longest_s, back_s, crashes, seen)


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
