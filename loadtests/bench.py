"""What each part of a request's way costs, in one run: `make bench`.

It starts a stack of its own beside any other, on free ports, with its files in `var/bench`. Every figure comes from a
closed loop after a warm-up; CPU time is that of the measured processes, without the load generator. The ratios hold
within one run; the figures themselves change with the machine and what else it does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from gateway.deadline import Deadline
from gateway.images.decode import decode
from gateway.images.preprocess import preprocess
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import TfSettings, TorchSettings
from loadtests.closed_loop import Call, Figures, HttpCaller, closed_loop, figures
from modelkit import spec as model_spec
from modelkit.spec import InputSpec
from tests.support.fake_gateway import FakeGateway, fake_gateway
from tests.support.stack import HOST, ROOT, Stack, free_ports, running_stack

MODEL = ModelRef("digits", 1)
WARM_UP_S = 6.0  # TorchServe's JVM compiles what it runs often; before that it is several times slower


@dataclass(frozen=True)
class Row:
    name: str
    in_flight: int
    figures: Figures
    gateway_cpu_ms: float | None
    worker_cpu_ms: float | None


class Bench:
    def __init__(self, seconds: float, console: Console) -> None:
        self._seconds = seconds
        self._console = console
        self.rows: list[Row] = []

    async def measure(
        self, name: str, callers: Sequence[Call], *, gateway: Sequence[int] = (), worker: Sequence[int] = ()
    ) -> None:
        """Measure one part with all callers, then with one, and keep both rows.

        `gateway` and `worker` are process ids; the CPU time of their children counts as theirs.
        """
        self._console.print(f"[dim]{name} …")
        await closed_loop(callers, WARM_UP_S)
        for some in (callers, callers[:1]):
            before = _cpu_s(gateway), _cpu_s(worker)
            result = await closed_loop(some, self._seconds)
            after = _cpu_s(gateway), _cpu_s(worker)
            cost = [(b - a) * 1000 / result.images for a, b in zip(before, after, strict=True)]
            self.rows.append(Row(name, len(some), result, cost[0] if gateway else None, cost[1] if worker else None))

    def bare(self, picture: Path, spec: InputSpec) -> None:
        """Decode and preprocess alone, in one thread of this process."""
        data = picture.read_bytes()
        latencies = []
        start_s, cpu_s = time.perf_counter(), time.process_time()
        while (begin_s := time.perf_counter()) < start_s + self._seconds:
            preprocess(decode(data, max_pixels=1 << 30), spec)
            latencies.append(time.perf_counter() - begin_s)
        elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        result = figures(latencies, elapsed_s)
        self.rows.append(Row("decode + preprocess, one thread", 1, result, cpu_s * 1000 / result.images, None))

    def of(self, name: str, in_flight: int) -> Row:
        return next(row for row in self.rows if (row.name, row.in_flight) == (name, in_flight))


async def run(seconds: float, in_flight: int, picture: Path) -> None:
    console = Console(width=120)
    bench = Bench(seconds, console)
    console.print("[dim]starting the stack …")
    with running_stack(ROOT / "var/bench") as stack, fake_gateway(stack.var) as fake, _traced_gateway(stack) as traced:
        stack.wait_until_ready()
        spec = model_spec.read(stack.var / "store/digits/1").input
        bench.bare(picture, spec)

        def http(port: int, runtime: str, expected: str) -> list[HttpCaller]:
            path = f"/v1/models/digits/predict?runtime={runtime}"
            return [HttpCaller(HOST, port, path, picture, expected) for _ in range(in_flight)]

        await bench.measure("gateway on a fake runtime", http(fake.port, "torch", ""), gateway=[fake.pid])
        await bench.measure("the same, traced", http(traced.port, "torch", ""), gateway=[traced.pid])
        tensor = preprocess(decode(picture.read_bytes(), max_pixels=1 << 30), spec)  # noqa: ASYNC240  nothing else runs
        torch_settings = TorchSettings(address=stack.environment["TANDEM_TORCH__ADDRESS"])
        tf_settings = TfSettings(address=stack.environment["TANDEM_TF__ADDRESS"])
        runtimes: list[Runtime] = [TorchRuntime(torch_settings), TfRuntime(tf_settings, stack.var / "serving/tf")]
        for runtime in runtimes:

            async def call(runtime: Runtime = runtime) -> None:
                await runtime.infer(MODEL, tensor, deadline=Deadline.after_ms(30_000))

            worker = [stack.pid(runtime.name)]
            await bench.measure(f"{runtime.name} worker over gRPC", [call] * in_flight, worker=worker)
            callers = http(int(stack.environment["TANDEM_HTTP__PORT"]), runtime.name, picture.stem)
            await bench.measure(
                f"gateway on the {runtime.name} worker", callers, gateway=[stack.pid("gateway")], worker=worker
            )
            await runtime.close()
        _print(bench, in_flight, picture, console)
        answered = sum(row.figures.images for row in bench.rows if row.name.startswith("gateway on the "))
        resident = psutil.Process(stack.pid("gateway")).memory_info().rss
        console.print(
            f"gateway: answers {fake.started_in_s:.2f} s after its start; "
            f"{resident / 1e6:.0f} MB resident after more than {answered} requests"
        )


@contextmanager
def _traced_gateway(stack: Stack) -> Iterator[FakeGateway]:
    """One that traces every request."""
    (port,) = free_ports(1)
    with subprocess.Popen([sys.executable, "-m", "tests.fakes.collector", str(port)], cwd=ROOT) as collector:
        try:
            with fake_gateway(stack.var, TANDEM_TRACING__ENDPOINT=f"http://{HOST}:{port}") as gateway:
                yield gateway
        finally:
            collector.terminate()


def _print(bench: Bench, in_flight: int, picture: Path, console: Console) -> None:
    table = Table(title=f"digits, {picture.name}, {os.cpu_count()} CPUs, {bench.rows[0].figures.images} bare loops")
    for column in ("part", "in flight", "images/s", "p50 ms", "p99 ms", "gateway CPU ms/image", "worker CPU ms/image"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in bench.rows:
        cells = (
            row.figures.images_per_s,
            row.figures.p50_ms,
            row.figures.p99_ms,
            row.gateway_cpu_ms,
            row.worker_cpu_ms,
        )
        table.add_row(row.name, str(row.in_flight), *("" if cell is None else f"{cell:.2f}" for cell in cells))
    console.print(table)
    bare = bench.of("decode + preprocess, one thread", 1)
    fake = bench.of("gateway on a fake runtime", in_flight)
    console.print(f"gateway on a fake ÷ bare loop: {_ratio(fake, bare):.2f} of its images/s")
    for number in (in_flight, 1):
        plain, traced = (bench.of(name, number) for name in ("gateway on a fake runtime", "the same, traced"))
        cpu = (traced.gateway_cpu_ms or 0) / (plain.gateway_cpu_ms or 1)
        console.print(
            f"traced ÷ not traced, {number} in flight: {_ratio(traced, plain):.2f} of its images/s, "
            f"{cpu:.2f} of its CPU time"
        )
    for name in ("torch", "tf"):
        through = bench.of(f"gateway on the {name} worker", in_flight)
        direct = bench.of(f"{name} worker over gRPC", in_flight)
        console.print(
            f"{name}: through the gateway ÷ called directly: {_ratio(through, direct):.2f} of its images/s; "
            f"÷ gateway on a fake: {_ratio(through, fake):.2f}"
        )
    torch, tf = (bench.of(f"gateway on the {name} worker", in_flight) for name in ("torch", "tf"))
    console.print(f"through the gateway, torch ÷ tf: {_ratio(torch, tf):.2f} of its images/s")


def _ratio(one: Row, other: Row) -> float:
    return one.figures.images_per_s / other.figures.images_per_s


def _cpu_s(pids: Sequence[int]) -> float:
    processes = [each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--in-flight", type=int, default=16, help="callers at once")
    parser.add_argument(
        "--picture", type=Path, default=ROOT / "models/digits/samples/7.png", help="a picture named after its label"
    )
    arguments = parser.parse_args()
    asyncio.run(run(arguments.seconds, arguments.in_flight, arguments.picture))
