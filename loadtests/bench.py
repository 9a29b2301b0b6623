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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
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
from tests.support.stack import free_ports, stack_environment

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
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

    def bare(self, picture: Path) -> None:
        """Decode and preprocess alone, in one thread of this process."""
        spec = model_spec.read(ROOT / "var/bench/store/digits/1").input
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
    with ExitStack() as processes:
        environment = stack_environment(ROOT / "var/bench")
        url = f"http://{HOST}:{environment['TANDEM_HTTP__PORT']}"
        processes.enter_context(
            _started([str(Path(sys.executable).with_name("tandem")), "up"], environment, url, console)
        )
        (fake_port,) = free_ports(1)
        fake_environment = environment | {"TANDEM_HTTP__PORT": str(fake_port)}
        fake_command = [sys.executable, "-m", "tests.fakes.gateway"]
        fake = processes.enter_context(_started(fake_command, fake_environment, f"http://{HOST}:{fake_port}", console))
        pids = {name: _listener(int(environment[variable].rpartition(":")[2])) for name, variable in _PORTS.items()}

        bench.bare(picture)

        def http(port: int, runtime: str, expected: str) -> list[HttpCaller]:
            path = f"/v1/models/digits/predict?runtime={runtime}"
            return [HttpCaller(HOST, port, path, picture, expected) for _ in range(in_flight)]

        await bench.measure("gateway on a fake runtime", http(fake_port, "torch", ""), gateway=[fake.pid])

        spec = model_spec.read(ROOT / "var/bench/store/digits/1").input
        tensor = preprocess(decode(picture.read_bytes(), max_pixels=1 << 30), spec)  # noqa: ASYNC240  nothing else runs
        torch_settings = TorchSettings(address=environment["TANDEM_TORCH__ADDRESS"])
        tf_settings = TfSettings(address=environment["TANDEM_TF__ADDRESS"])
        runtimes: list[Runtime] = [TorchRuntime(torch_settings), TfRuntime(tf_settings)]
        for runtime in runtimes:

            async def call(runtime: Runtime = runtime) -> None:
                await runtime.infer(MODEL, tensor, deadline=Deadline.after_ms(30_000))

            await bench.measure(f"{runtime.name} worker over gRPC", [call] * in_flight, worker=[pids[runtime.name]])
            callers = http(int(environment["TANDEM_HTTP__PORT"]), runtime.name, picture.stem)
            await bench.measure(
                f"gateway on the {runtime.name} worker", callers, gateway=[pids["gateway"]], worker=[pids[runtime.name]]
            )
            await runtime.close()
    _print(bench, in_flight, picture, console)


_PORTS = {"gateway": "TANDEM_HTTP__PORT", "torch": "TANDEM_TORCH__ADDRESS", "tf": "TANDEM_TF__ADDRESS"}


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


@contextmanager
def _started(
    command: Sequence[str], environment: dict[str, str], url: str, console: Console
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; the block begins when its gateway says that all is ready."""
    console.print(f"[dim]starting {' '.join(Path(word).name for word in command)} …")
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            while not _all_ready(url):
                if process.poll() is not None:
                    raise SystemExit(
                        f"{' '.join(command)} ended with {process.returncode}. Run it by itself to see why."
                    )
                time.sleep(0.25)
            yield process
        finally:
            process.terminate()


def _all_ready(url: str) -> bool:
    try:
        models = httpx.get(f"{url}/readyz", timeout=5).json()["models"]
    except httpx.TransportError:
        return False
    return bool(models) and all(state["state"] == "ready" for each in models.values() for state in each.values())


def _listener(port: int) -> int:
    """The process id that listens on `port`."""
    return next(
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid is not None
    )


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
