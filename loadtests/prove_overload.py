"""Three times as many requests as can be answered: `python -m loadtests.prove_overload` (`make prove-load`).

A stack of its own with real workers, its files in `var/overload`. Its peak is measured by a closed loop; then requests
come at a constant rate: half of the peak, three times the peak for a minute, and half of it again. It ends with 1 where
a target is missed: goodput (answers within the deadline) of at least 90 % of the peak; the p99 of what was accepted
within the deadline; the p99 of refusals below 50 ms; memory up by at most 50 MB; normal again within 5 s.

The load comes from the same machine: at a few hundred requests a second it takes some hundredths of a core. It is said
at the end, and is part of what a target is missed by.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from loadtests.closed_loop import HttpCaller, closed_loop
from loadtests.open_loop import OpenLoop, Sent
from tests.support.stack import ROOT, Stack, running_stack

TIMES = 3.0
LEAST_GOODPUT = 0.9
MOST_REFUSAL_S = 0.05
MOST_GROWTH = 50e6
MOST_RECOVERY_S = 5.0
_OK, _REFUSED, _LATE = 200, 429, 504
_WARM_UP_S = 8.0
_PEAK_S = 10.0
_CALM_S = 8.0
_SAMPLE_S = 0.25
_SAMPLES = {"digits": "7.png", "shapes": "scene-1.jpg"}


@dataclass(frozen=True)
class Verdict:
    what: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Overload:
    """What came of it."""

    peak_per_s: float
    deadline_s: float
    seconds: float
    before: Sequence[Sent]
    during: Sequence[Sent]
    after: Sequence[Sent]
    memory: Sequence[int]
    """Bytes in RAM of the gateway, the first before it."""

    def verdicts(self) -> list[Verdict]:
        accepted = [each for each in self.during if each.status != _REFUSED]
        refused = [each for each in self.during if each.status == _REFUSED]
        in_time = sum(self._in_time(each) for each in accepted)
        goodput = in_time / self.seconds / self.peak_per_s
        late = 1 - in_time / max(1, len(accepted))
        p99_s = float(np.percentile([each.seconds for each in accepted], 99)) if accepted else float("inf")
        refusal_s = float(np.percentile([each.seconds for each in refused], 99)) if refused else float("inf")
        growth = max(self.memory) - self.memory[0]
        recovery_s = self.recovery_s()
        others = {status for each in self.during if (status := each.status) not in (_OK, _REFUSED, _LATE)}
        honest = all(each.retry_after_s is not None and each.retry_after_s >= 1 for each in refused)
        return [
            Verdict(
                "goodput", goodput >= LEAST_GOODPUT, f"{goodput:.0%} of the peak of {self.peak_per_s:.0f} a second"
            ),
            Verdict(
                "accepted",
                late <= 0.01,
                f"p99 {p99_s * 1000:.0f} ms of {self.deadline_s * 1000:.0f}; {late:.2%} of {len(accepted)} not in time",
            ),
            Verdict(
                "refused", refusal_s < MOST_REFUSAL_S and honest, f"p99 {refusal_s * 1000:.1f} ms of {len(refused)}"
            ),
            Verdict("memory", growth <= MOST_GROWTH, f"{growth / 1e6:+.1f} MB at most"),
            Verdict("normal again", recovery_s <= MOST_RECOVERY_S, f"after {recovery_s:.1f} s"),
            Verdict("answers", not others, f"other statuses: {sorted(others) or 'none'}"),
        ]

    def recovery_s(self) -> float:
        """From the end of the overload until all are answered, and no more than twice as slowly as before it."""
        usual_s = float(np.percentile([each.seconds for each in self.before], 95))
        start_s = min(each.at_s for each in self.after)
        normal_s = 0.0
        for each in sorted(self.after, key=lambda each: each.at_s):
            if each.status != _OK or each.seconds > 2 * usual_s + 0.05:
                normal_s = each.at_s - start_s + each.seconds
        return normal_s

    def _in_time(self, sent: Sent) -> bool:
        return sent.status == _OK and sent.seconds <= self.deadline_s


class Proof:
    def __init__(self, stack: Stack, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        self._console = console
        address = urlsplit(stack.url)
        assert address.hostname is not None  # noqa: S101  a stack's URL has both
        assert address.port is not None  # noqa: S101
        self._address = address.hostname, address.port
        self._gateway = [psutil.Process(pid) for pid in stack.pids("gateway")]
        self._picture = ROOT / "models" / options.model / "samples" / _SAMPLES[options.model]
        self._target = f"/v1/models/{options.model}/predict?runtime={options.runtime}"
        self._load = OpenLoop(*self._address, f"{self._target}&timeout_ms={options.timeout_ms}", self._picture)
        self._memory: list[int] = []

    async def run(self) -> bool:
        """Whether every target is met."""
        peak_per_s = await self._peak()
        self._console.print(f"peak: {peak_per_s:.0f} answers a second, {self._options.in_flight} in flight")
        before = await self._ask(0.5 * peak_per_s, _CALM_S)
        self._memory.append(self._resident())
        sampling = asyncio.create_task(self._sample())
        cpu_s = time.process_time()
        during = await self._ask(TIMES * peak_per_s, self._options.seconds)
        cpu_s = time.process_time() - cpu_s
        after = await self._ask(0.5 * peak_per_s, _CALM_S)
        sampling.cancel()
        self._load.close()
        came = Overload(
            peak_per_s, self._options.timeout_ms / 1000, self._options.seconds, before, during, after, self._memory
        )
        self._show(came)
        late_s = float(np.percentile([each.late_s for each in during], 99))
        self._console.print(
            f"the load itself took {cpu_s / self._options.seconds:.2f} of a core during the overload, and was late by "
            f"{late_s * 1000:.1f} ms at its p99"
        )
        verdicts = came.verdicts()
        for each in verdicts:
            self._console.print(f"{'passed' if each.passed else 'FAILED'}  {each.what}: {each.why}", markup=False)
        return all(each.passed for each in verdicts)

    async def _peak(self) -> float:
        callers = [HttpCaller(*self._address, self._target, self._picture, "") for _ in range(self._options.in_flight)]
        await closed_loop(callers, _WARM_UP_S)
        figures = await closed_loop(callers, _PEAK_S)
        for caller in callers:
            await caller.close()
        return figures.images_per_s

    async def _ask(self, rate: float, seconds: float) -> Sequence[Sent]:
        # It is to begin where the last phase ended: what that left behind is part of what this one meets.
        return await self._load.run(rate, seconds, patience_s=self._options.timeout_ms / 1000 + 1)

    async def _sample(self) -> None:
        while True:
            self._memory.append(self._resident())
            await asyncio.sleep(_SAMPLE_S)

    def _resident(self) -> int:
        return sum(each.memory_info().rss for each in self._gateway)

    def _show(self, came: Overload) -> None:
        table = Table("phase", "asked/s", "answered/s", "p50 ms", "p99 ms", "statuses")
        spans = {"half of the peak": came.before, f"{TIMES:g} times": came.during, "half again": came.after}
        for phase, sent in spans.items():
            seconds = came.seconds if sent is came.during else _CALM_S
            answered = [each.seconds * 1000 for each in sent if each.status == _OK]
            p50, p99 = np.percentile(answered, [50, 99]) if answered else (float("nan"),) * 2
            counts = ", ".join(f"{status} × {count}" for status, count in Counter(each.status for each in sent).items())
            figures = (len(sent) / seconds, len(answered) / seconds, p50, p99)
            table.add_row(phase, *(f"{figure:.1f}" for figure in figures), counts)
        self._console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(_SAMPLES), default="shapes")
    parser.add_argument("--runtime", choices=["torch", "tf"], default="torch")
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--timeout-ms", type=int, default=2000, help="each request's deadline")
    parser.add_argument("--in-flight", type=int, default=64, help="callers of the closed loop that finds the peak")
    options = parser.parse_args()
    with running_stack(ROOT / "var/overload") as stack:
        stack.wait_until_ready(options.model)
        passed = asyncio.run(Proof(stack, options, Console(width=120)).run())
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
