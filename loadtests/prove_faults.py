"""What clients notice of workers that fail, on real workers: `python -m loadtests.prove_faults` (`make prove-faults`).

A stack of its own under a steady load, on a machine that does nothing else, or answers are late for other reasons.
The worker of one runtime is killed, restarted or stopped (SIGSTOP); or a proxy between the gateway and it closes its
port, says nothing any more, makes it ten times slower, or makes its answers errors, of the wrong shape or of the wrong
type. All that for each runtime, under a fixed policy, with failover, and, where a proxy does it, with a fixed policy
and a second worker that is well. What must hold:

- no answer is a 500, none is missing, and none comes later than its deadline;
- the worker's first good answer comes within 5 s of its being back, without anybody touching the gateway;
- with failover no more requests fail than were under way when the fault began;
- with a second worker, besides those, five that make the fault known, and one a second that tries again; and in the
  last second of the fault the worker is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtests.faults.cell import TIMEOUT_S, Cell, Outcome, cells, run
from loadtests.faults.workers import FAULTS, scene_of
from modelkit.spec import RUNTIME_NAMES
from tests.support.stack import ROOT, Stack, running_stack


async def prove(stack: Stack, chosen: Sequence[Cell], *, hold_s: float, timeout_s: float) -> list[Outcome]:
    """What becomes of the cells, one after the other. `timeout_s`: what each request allows."""
    async with scene_of(stack) as scene:
        return [await run(cell, scene, hold_s=hold_s, timeout_s=timeout_s) for cell in chosen]


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table("fault", "runtime", "policy", "requests", "ok", "failed", "longest s", "back in s", "")
    for each in outcomes:
        cell = each.cell
        failed = ", ".join(f"{code} {count}" for code, count in sorted(each.codes.items()) if code != "ok")
        table.add_row(
            cell.fault,
            cell.runtime,
            cell.policy,
            str(each.requests),
            str(each.codes.get("ok", 0)),
            failed or "none",
            f"{each.longest_s:.2f}",
            "never" if each.recovered_s is None else f"{each.recovered_s:.2f}",
            "FAILED" if each.faults else "",
        )
    console.print(table)
    for each in outcomes:
        for fault in each.faults:
            console.print(f"FAILED  {each.cell.name}: {fault}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold", type=float, default=5.0, help="seconds that a fault lasts")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--runtime", choices=RUNTIME_NAMES, action="append", help="only this one")
    options = parser.parse_args()
    chosen = list(cells(options.fault or FAULTS, options.runtime or RUNTIME_NAMES))
    with tempfile.TemporaryDirectory() as folder:
        var = Path(folder) / "var"
        build = [sys.executable, "-m", "modelkit", "build", f"--store={var / 'store'}", f"--serving={var / 'serving'}"]
        subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with running_stack(var) as stack:
            stack.wait_until_ready()
            outcomes = asyncio.run(prove(stack, chosen, hold_s=options.hold, timeout_s=TIMEOUT_S))
    show(outcomes, Console(width=160))
    sys.exit(1 if any(each.faults for each in outcomes) else 0)


if __name__ == "__main__":
    main()
