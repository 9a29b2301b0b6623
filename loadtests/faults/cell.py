"""One cell of the matrix: a fault of one runtime's worker under one policy, and what clients got."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Literal

from gateway.breaker import FAILURES, OPEN_S
from loadtests.faults.load import Answered, SteadyLoad
from loadtests.faults.workers import OF_PROXY, Fault, Scene, Way, ready, until
from modelkit.spec import RuntimeName
from tests.support.stack import ROOT

PICTURE = ROOT / "models/digits/samples/7.png"
RATE = 20.0
TIMEOUT_S = 4.0
LATE_S = 0.1
"""Nobody waits for longer past the deadline."""
LAG_S = 0.4
"""What this program and its two cores may add to that: it is itself a client, beside the workers."""
BACK_WITHIN_S = 5.0
_BEFORE_S = 1.5
_AFTER_S = 1.0
_GIVEN_UP_S = 20.0


Policy = Literal["fixed", "failover", "two workers"]
"""The last: a fixed policy, and the runtime has another worker that is well."""


@dataclass(frozen=True)
class Cell:
    fault: Fault
    runtime: RuntimeName
    policy: Policy

    @property
    def name(self) -> str:
        return f"{self.fault}, {self.runtime}, {self.policy}"


def cells(faults: Sequence[Fault], runtimes: Sequence[RuntimeName]) -> Iterator[Cell]:
    for fault, runtime in product(faults, runtimes):
        if fault != "silent":  # that is `hung`, where there is only one
            yield Cell(fault, runtime, "fixed")
            yield Cell(fault, runtime, "failover")
        if fault in OF_PROXY:
            yield Cell(fault, runtime, "two workers")


@dataclass(frozen=True)
class Outcome:
    cell: Cell
    codes: Mapping[str, int]
    timeout_s: float
    in_flight: int
    """Requests under way at the fault."""
    lasted_s: float
    """From the fault to the worker's being back."""
    longest_s: float
    recovered_s: float | None
    """From the worker's being back to its first good answer to a request that was begun after that."""
    crashes: int
    """Answers of 500, and requests without any."""
    seen: int
    """Requests that a worker which is one of two got in the last second of the fault."""

    @property
    def requests(self) -> int:
        return sum(self.codes.values())

    @property
    def failed(self) -> int:
        return self.requests - self.codes.get("ok", 0)

    @property
    def allowed(self) -> int:
        """Most requests that may fail."""
        match self.cell.policy:
            case "fixed":
                return self.requests
            case "failover":
                return self.in_flight
            case "two workers":  # what makes it known, and one that tries again every so often
                return self.in_flight + FAILURES + int(self.lasted_s / OPEN_S) + 1

    @property
    def faults(self) -> list[str]:
        """What is not as it is promised, in words; none where all is."""
        found = []
        if self.crashes:
            found.append(f"{self.crashes} answers of 500 or none at all")
        if self.longest_s > self.timeout_s + LATE_S + LAG_S:
            found.append(f"an answer after {self.longest_s:.1f} s, the deadline was {self.timeout_s:g}")
        if self.recovered_s is None:
            found.append(f"no good answer in {_GIVEN_UP_S:g} s after the worker was back")
        elif self.recovered_s > BACK_WITHIN_S:
            found.append(f"the first good answer {self.recovered_s:.1f} s after the worker was back")
        if self.failed > self.allowed:
            found.append(f"{self.failed} failed, at most {self.allowed} may")
        if self.seen > 2:
            found.append(f"the worker got {self.seen} requests in the last second of the fault: it was not left out")
        if self.cell.policy == "fixed" and self.cell.fault != "slow" and not self.failed:
            found.append("nothing failed: the fault was none")
        return found


async def run(cell: Cell, scene: Scene, *, hold_s: float, timeout_s: float) -> Outcome:
    """The fault lasts for `hold_s`, or for as long as the worker takes to start again."""
    worker, way = scene.workers[cell.runtime], _way(cell, scene)
    await until(lambda: ready(way.client), f"both runtimes ready before {cell.name}")
    await _set_policy(cell, way)
    load = SteadyLoad(
        way.client, f"/v1/models/digits/predict?timeout_ms={timeout_s * 1000:.0f}", PICTURE.read_bytes(), rate=RATE
    )
    load.start()
    await asyncio.sleep(_BEFORE_S)
    in_flight, struck_s = load.in_flight, time.monotonic()
    await worker.strike(cell.fault, way)
    await asyncio.sleep(hold_s)
    back_s = await worker.mend(cell.fault, way)

    async def answers() -> bool:
        return bool(_good(load.answered, cell, way, back_s))

    with suppress(TimeoutError):  # what the outcome then says
        await until(answers, "a good answer", patience_s=_GIVEN_UP_S)
    await asyncio.sleep(_AFTER_S)
    answered = await load.stop()
    good = _good(answered, cell, way, back_s)
    return Outcome(
        cell,
        Counter(each.code for each in answered),
        timeout_s,
        in_flight,
        back_s - struck_s,
        max(each.seconds for each in answered),
        min(good) - back_s if good else None,
        sum(each.status in (0, 500) for each in answered),
        _seen(cell, way, back_s),
    )


def _way(cell: Cell, scene: Scene) -> Way:
    if cell.policy == "two workers":
        return scene.pair
    return scene.single if cell.fault in OF_PROXY else scene.direct


async def _set_policy(cell: Cell, way: Way) -> None:
    other = "tf" if cell.runtime == "torch" else "torch"
    policy = (
        {"policy": "failover", "targets": [cell.runtime, other]}
        if cell.policy == "failover"
        else {"policy": "fixed", "target": cell.runtime}
    )
    (await way.client.put("/v1/models/digits/routing", json=policy)).raise_for_status()


def _good(answered: Sequence[Answered], cell: Cell, way: Way, since_s: float) -> Sequence[float]:
    """When the worker gave its own good answers to what was asked since then."""
    if cell.policy == "two workers":
        return [each for each in way.proxies[cell.runtime].answered_s if each >= since_s]
    return [each.end_s for each in answered if each.begin_s >= since_s and each.runtime == cell.runtime]


def _seen(cell: Cell, way: Way, back_s: float) -> int:
    if cell.policy != "two workers":
        return 0
    return sum(back_s - 1 <= each < back_s for each in way.proxies[cell.runtime].asked_s)
