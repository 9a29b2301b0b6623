"""Each worker against the bare loop around its own artifact: `make bench-workers`.

For ResNet-50 and MobileNetV2 with random weights, at 224 × 224, and for each runtime, in turn, several rounds over: the
artifact in a loop without a server at batch 8 (one process with all threads; a process of one thread for each CPU), at
batch 1 with all threads, and the worker, started as `tandem up` starts it, over gRPC with 1, 8 and 16 pictures in
flight. A figure is the median of the rounds; a ratio is the median of the rounds' ratios, whose two sides were measured
within a minute of each other. The ratios hold for this machine; the figures change with what else it does.

The same again in bf16, against fp32, with what the proofs of the bundled models, which are trained, say of how well
both precisions agree. Then the soak: 50,000 pictures of the digits model with 16 in flight, in ten parts. A worker
that keeps memory and speed has as much of both in the last parts as in the first ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from gateway.settings import Settings
from loadtests.bare_process import bare_process, together
from loadtests.closed_loop import closed_loop
from loadtests.worker_process import Worker, worker
from loadtests.workers_packages import MODELS, packages, proven, smallest
from modelkit import parity
from modelkit.spec import RUNTIME_NAMES, ModelSpec, Precision, RuntimeName
from tests.support.stack import ROOT, stack_environment
from torch_worker.tuning import available_cpus

BATCH = 8
IN_FLIGHT = (1, 8, 16)
WARM_UP_S = 5.0
SOAK_PARTS = 10
LEAST_RATIO = {"resnet50": 0.92, "mobilenetv2": 0.75}
"""Images a second with 16 in flight, as a share of the better bare loop's."""
MOST_OVER_BARE_MS = 3.0
"""By how much the median of a lone request may be over the bare batch of one picture."""


@dataclass
class Rounds:
    """What was measured of one model on one runtime, a value for each round."""

    spec: ModelSpec
    runtime: RuntimeName
    bare: list[float] = field(default_factory=list)
    """Images a second of one process with all threads."""
    bare_single: list[float] = field(default_factory=list)
    """The same of a process of one thread for each CPU."""
    bare_one_ms: list[float] = field(default_factory=list)
    """Median time of a batch of one picture."""
    lone_parts_ms: tuple[float, float, float] | None = None
    """A lone picture's time until it is computed, while, and after, where the worker says them."""
    served: dict[int, list[float]] = field(default_factory=lambda: {number: [] for number in IN_FLIGHT})
    """Images a second by pictures in flight."""
    served_ms: dict[int, list[float]] = field(default_factory=lambda: {number: [] for number in IN_FLIGHT})
    """Median latency by pictures in flight."""

    def ratio(self, in_flight: int) -> float:
        """Images a second of the worker ÷ those of the better bare loop."""
        better = max((self.bare, self.bare_single), key=statistics.median)
        return statistics.median(one / other for one, other in zip(self.served[in_flight], better, strict=True))

    @property
    def over_bare_ms(self) -> float:
        """How much longer a lone request takes than the bare batch of one picture."""
        return statistics.median(one - other for one, other in zip(self.served_ms[1], self.bare_one_ms, strict=True))


async def measure(name: RuntimeName, settings: Settings, spec: ModelSpec, seconds: float, rounds: int) -> Rounds:
    found, cpus = Rounds(spec, name), available_cpus()
    package = settings.store / spec.name / str(spec.version)
    async with AsyncExitStack() as running:
        bare = [await running.enter_async_context(bare_process(name, package, spec, cpus))]
        single = [await running.enter_async_context(bare_process(name, package, spec, 1)) for _ in range(cpus)]
        served = await running.enter_async_context(worker(name, settings, spec))
        calls = [await served.caller(spec)] * max(IN_FLIGHT)
        await closed_loop(calls, WARM_UP_S)
        for _ in range(rounds):
            found.bare.append(await together(bare, BATCH, seconds))
            found.bare_single.append(await together(single, BATCH, seconds))
            found.bare_one_ms.append((await bare[0].measure(1, seconds)).p50_ms)
            for in_flight in IN_FLIGHT:
                figures = await closed_loop(calls[:in_flight], seconds)
                found.served[in_flight].append(figures.images_per_s)
                found.served_ms[in_flight].append(figures.p50_ms)
        found.lone_parts_ms = await served.lone_parts(spec)
    return found


async def soak(name: RuntimeName, settings: Settings, spec: ModelSpec, pictures: int, console: Console) -> bool:
    """Whether the worker is as fast and as small after `pictures` as after the first tenth of them."""
    async with worker(name, settings, spec) as served:
        parts = [await _part(served, spec, pictures // SOAK_PARTS) for _ in range(SOAK_PARTS)]
    speeds, memories = zip(*parts, strict=True)
    early, late = statistics.median(speeds[1:4]), statistics.median(speeds[-3:])
    grown = memories[-1] - memories[1]
    console.print(
        f"{name}: {pictures} pictures of {spec.name}, {max(IN_FLIGHT)} in flight: images/s "
        f"{' '.join(f'{each:.0f}' for each in speeds)} (late ÷ early {late / early:.2f}); memory MB "
        f"{' '.join(f'{each / 1e6:.0f}' for each in memories)}"
    )
    return bool(late > 0.9 * early and grown < 0.05 * memories[1])


async def _part(served: Worker, spec: ModelSpec, pictures: int) -> tuple[float, float]:
    """Images a second of so many pictures, and the worker's bytes after them."""
    call, left = await served.caller(spec), pictures

    async def keep_asking() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    start = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for _ in range(max(IN_FLIGHT)):
            group.create_task(keep_asking())
    return pictures / (asyncio.get_running_loop().time() - start), served.resident_bytes()


def show(found: Sequence[Rounds], console: Console) -> None:
    table = Table(title=f"224 × 224, {available_cpus()} CPUs ({processor()})")
    table.add_column("model")
    table.add_column("runtime")
    for column in (
        f"bare, 1 × {available_cpus()} threads",
        f"bare, {available_cpus()} × 1 thread",
        *(f"worker, {number} in flight" for number in IN_FLIGHT),
        "÷ better bare",
        "bare batch 1, ms",
        "worker p50, 1 in flight, ms",
        "over bare, ms",
    ):
        table.add_column(column, justify="right")
    for each in found:
        medians = [each.bare, each.bare_single, *each.served.values()]
        table.add_row(
            f"{each.spec.name} {each.spec.precision}",
            each.runtime,
            *(f"{statistics.median(values):.1f}" for values in medians),
            f"{each.ratio(max(IN_FLIGHT)):.2f}",
            f"{statistics.median(each.bare_one_ms):.1f}",
            f"{statistics.median(each.served_ms[1]):.1f}",
            f"{each.over_bare_ms:.1f}",
        )
    console.print(table)
    for each in found:
        if each.lone_parts_ms is not None:
            before, during, after = each.lone_parts_ms
            console.print(
                f"{each.spec.name} {each.spec.precision} on {each.runtime}, a lone picture, ms: {before:.1f} until it"
                f" is computed, {during:.1f} while, {after:.1f} after"
            )
        if each.spec.precision != "fp32":
            continue
        ratio, over = each.ratio(max(IN_FLIGHT)), each.over_bare_ms
        for what, value, limit, met in (
            ("÷ better bare", ratio, LEAST_RATIO[each.spec.name], ratio >= LEAST_RATIO[each.spec.name]),
            ("ms over bare", over, MOST_OVER_BARE_MS, over <= MOST_OVER_BARE_MS),
        ):
            console.print(
                f"{each.spec.name} on {each.runtime}: {value:.2f} {what} (target {limit}): {'met' if met else 'MISSED'}"
            )


def show_reduced(found: Sequence[Rounds], proofs: Sequence[ModelSpec], console: Console) -> None:
    """How much faster each model is in 16 bits, and how well the bundled models agree with themselves in fp32."""
    fp32 = {(each.spec.name, each.runtime): each for each in found if each.spec.precision == "fp32"}
    for each in found:
        if (whole := fp32[each.spec.name, each.runtime]) is each:
            continue
        ratios = [
            statistics.median(one) / statistics.median(other)
            for one, other in ((each.bare, whole.bare), (each.served[max(IN_FLIGHT)], whole.served[max(IN_FLIGHT)]))
        ]
        console.print(
            f"{each.spec.name} on {each.runtime}, {each.spec.precision} ÷ fp32: {ratios[0]:.2f} of the bare loop's"
            f" images/s, {ratios[1]:.2f} of the worker's with {max(IN_FLIGHT)} in flight"
        )
    for made in proofs:
        console.print(f"{made.name} in {made.precision}: {parity.report(made.proof)}", highlight=False)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")


async def run(options: argparse.Namespace) -> None:
    console = Console(width=220)
    os.environ.update(stack_environment(ROOT / "var/bench-workers"))
    settings = Settings()
    specs = [
        spec for precision in options.precisions for spec in packages(settings, options.models, precision, console)
    ]
    found = []
    for spec in specs:
        for name in options.runtimes:
            console.print(f"[dim]{spec.name} in {spec.precision} on {name} …")
            found.append(await measure(name, settings, spec, options.seconds, options.rounds))
    show(found, console)
    if "fp32" in options.precisions and len(options.precisions) > 1:
        proofs = [each for precision in options.precisions[1:] for each in proven(settings, precision, console)]
        show_reduced(found, proofs, console)
    if options.soak:
        small = smallest(settings, console)
        for name in options.runtimes:
            kept = await soak(name, settings, small, options.soak, console)
            console.print(f"{name} keeps its memory and its speed: {'yes' if kept else 'NO'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIME_NAMES, default=list(RUNTIME_NAMES))
    parser.add_argument("--precisions", nargs="+", choices=get_args(Precision), default=["fp32", "bf16"])
    parser.add_argument("--soak", type=int, default=50_000, help="pictures of the soak; 0: none")
    asyncio.run(run(parser.parse_args()))
