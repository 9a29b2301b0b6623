"""Nobody waits 100 ms past its deadline: `python -m loadtests.prove_deadlines` (`make prove-deadlines`).

A real gateway and, for each runtime, a worker that takes every picture and answers none. A dozen clients at once

- wait for their deadlines: at the worker, in the queue for a place there, or with a body that does not come to its end.
  Each must be told 504, at most 100 ms late as it sees it;
- hang up, at a moment by chance once their picture is at the worker: the call must be cancelled there within 100 ms; or
  in the queue, where none of them may be left after that time. All must be counted as `cancelled`, and nothing else.

Clients and worker are this one program, which does little besides. It needs a machine that does nothing else: the most
that its own timers were late is in the table, and so much of a figure may be the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.deadlines.phases import PLACES, Outcome, Phases
from modelkit.spec import RUNTIME_NAMES
from tests.fakes.silent import SilentWorker
from tests.support.gateway import Gateway, running_gateway
from tests.support.stack import HOST, free_ports
from tests.support.waiting import wait_until


def gateway_of(var: Path, address: str) -> AbstractContextManager[Gateway]:
    """A gateway both of whose runtimes are at `address`, host:port."""
    settings = {"TANDEM_TORCH__MANAGEMENT_ADDRESS": address}
    for name in ("TANDEM_TORCH", "TANDEM_TF"):
        settings |= {
            f"{name}__ADDRESS": address,
            f"{name}__ADMISSION": "fixed",
            f"{name}__MAX_INFLIGHT": str(PLACES),
        }
    # Nobody waits to be decoded: who then had too little time for such a worker would be refused.
    settings["TANDEM_LIMITS__DECODE_THREADS"] = str(PLACES)
    return running_gateway(var, program="gateway", **settings)


async def prove(gateway: Gateway, address: str, count: int) -> Sequence[Outcome]:
    """What comes of `count` requests in each phase, for each runtime."""
    worker, outcomes = SilentWorker(), list[Outcome]()
    async with worker.open(address):
        await asyncio.to_thread(wait_until, lambda: _ready(gateway), gateway.output.read_text, pause_s=0.1)
        for runtime in RUNTIME_NAMES:
            outcomes += await Phases(gateway, worker, runtime, count).run()
    return outcomes


def _ready(gateway: Gateway) -> bool:
    states = gateway.client.get("/readyz").json()["models"].get("digits", {})
    return {states.get(name, {}).get("state") for name in RUNTIME_NAMES} == {"ready"}


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table("what", "runtime", "figures", "p50 ms", "p99 ms", "max ms", "own timers, max ms", "")
    for each in outcomes:
        figures = [*np.percentile(each.late_s or [float("nan")], [50, 99, 100]), each.own_late_s]
        texts = [f"{figure * 1000:.1f}" for figure in figures]
        table.add_row(each.what, each.runtime, str(len(each.late_s)), *texts, "FAILED" if each.faults() else "passed")
    console.print(table)
    for each in outcomes:
        for fault in each.faults():
            console.print(f"FAILED  {each.what}, {each.runtime}: {fault}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="in each phase, for each runtime")
    options = parser.parse_args()
    (port,) = free_ports(1)
    address = f"{HOST}:{port}"
    with tempfile.TemporaryDirectory() as folder, gateway_of(Path(folder), address) as gateway:
        # What this program starts with is not looked through for garbage while it measures.
        gc.collect()
        gc.freeze()
        outcomes = asyncio.run(prove(gateway, address, options.requests))
    show(outcomes, Console(width=120))
    sys.exit(1 if any(each.faults() for each in outcomes) else 0)


if __name__ == "__main__":
    main()
