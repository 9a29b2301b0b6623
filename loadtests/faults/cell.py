"""One cell of the matrix: a fault of one runtime's worker under one policy, and what clients got."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import httpx

from loadtests.faults.load import Answered, SteadyLoad
from loadtests.faults.workers import Fault, Worker, ready, until
from modelkit.spec import RuntimeName
from tests.support.stack import ROOT

PICTURE = ROOT / "models/digits/samples/7.png"
RATE = 20.0
TIMEOUT_MS = 4000
LATE_S = 0.1
"""Nobody waits for longer past the deadline."""
LAG_S = 0.4
"""What this program and its two cores may add to that: it is itself a client, beside the workers."""
BACK_WITHIN_S = 5.0
_BEFORE_S = 1.5
_AFTER_S = 1.0
_GIVEN_UP_S = 20.0


@dataclass(frozen=True)
class Cell:
    fault: Fault
    runtime: RuntimeName
    failover: bool

    @property
    def name(self) -> str:
        return f"{self.fault}, {self.runtime}, {'failover' if self.failover else 'fixed'}"


@dataclass(frozen=True)
class Outcome:
    cell: Cell
    codes: Mapping[str, int]
    in_flight: int
    """Requests under way at the fault."""
    longest_s: float
    recovered_s: float | None
    """From the worker's being back to its first good answer to a request that was begun after that."""
    crashes: int
    """Answers of 500, and requests without any."""

    @property
    def requests(self) -> int:
        return sum(self.codes.values())

    @property
    def faults(self) -> list[str]:
        """What is not as it is promised, in words; none where all is."""
        found = []
        if self.crashes:
            found.append(f"{self.crashes} answers of 500 or none at all")
        if self.longest_s > TIMEOUT_MS / 1000 + LATE_S + LAG_S:
            found.append(f"an answer after {self.longest_s:.1f} s, the deadline was {TIMEOUT_MS / 1000:g}")
        if self.recovered_s is None:
            found.append(f"no good answer in {_GIVEN_UP_S:g} s after the worker was back")
        elif self.recovered_s > BACK_WITHIN_S:
            found.append(f"the first good answer {self.recovered_s:.1f} s after the worker was back")
        failed = self.requests - self.codes.get("ok", 0)
        if self.cell.failover and failed > self.in_flight:
            found.append(f"{failed} failed with failover, {self.in_flight} were in flight at the fault")
        if not self.cell.failover and self.cell.fault != "slow" and not failed:
            found.append("nothing failed: the fault was none")
        return found


async def run(cell: Cell, worker: Worker, client: httpx.AsyncClient, *, hold_s: float) -> Outcome:
    """The fault lasts for `hold_s`, or for as long as the worker takes to start again."""
    await until(lambda: ready(client), f"both runtimes ready before {cell.name}")
    other = "tf" if cell.runtime == "torch" else "torch"
    policy = (
        {"policy": "failover", "targets": [cell.runtime, other]}
        if cell.failover
        else {"policy": "fixed", "target": cell.runtime}
    )
    (await client.put("/v1/models/digits/routing", json=policy)).raise_for_status()
    load = SteadyLoad(client, f"/v1/models/digits/predict?timeout_ms={TIMEOUT_MS}", PICTURE.read_bytes(), rate=RATE)
    load.start()
    await asyncio.sleep(_BEFORE_S)
    in_flight = load.in_flight
    await worker.strike(cell.fault)
    await asyncio.sleep(hold_s)
    back_s = await worker.mend(cell.fault)

    async def answers() -> bool:
        return bool(_good(load.answered, cell, back_s))

    with suppress(TimeoutError):  # what the outcome then says
        await until(answers, "a good answer", patience_s=_GIVEN_UP_S)
    await asyncio.sleep(_AFTER_S)
    answered = await load.stop()
    good = _good(answered, cell, back_s)
    return Outcome(
        cell,
        Counter(each.code for each in answered),
        in_flight,
        max(each.seconds for each in answered),
        min(each.end_s for each in good) - back_s if good else None,
        sum(each.status in (0, 500) for each in answered),
    )


def _good(answered: Sequence[Answered], cell: Cell, since_s: float) -> list[Answered]:
    """The worker's own good answers to what was asked since then."""
    return [each for each in answered if each.begin_s >= since_s and each.runtime == cell.runtime]
