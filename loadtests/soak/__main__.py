"""A soak of the whole stack, of its own beside any other: `python -m loadtests.soak --minutes 30` (`make soak`).

Real workers, both bundled models, good and bad requests and clients that misbehave, at a rate that keeps the cores
busy. The memory, file descriptors, threads and tasks of the gateway are sampled; at the end each is judged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.table import Table

from loadtests.soak import samples, verdict
from loadtests.soak.client import Client
from loadtests.soak.load import Load
from loadtests.soak.mix import mix
from loadtests.soak.samples import Sample, Sampler
from loadtests.soak.verdict import Verdict
from tests.support.stack import Stack, running_stack

_SAMPLES_LEAST = 60
_EVERY_S = 5.0
_WARM_UP_SHARE = 0.25
SETTINGS = {
    "TANDEM_REQUEST_LOG__MAX_ROWS": "20000",  # so that old rows go while it runs
    "TANDEM_DISAGREEMENTS__MAX_COUNT": "50",
}


class Soak:
    def __init__(self, stack: Stack, options: argparse.Namespace, console: Console) -> None:
        self._stack = stack
        self._options = options
        self._console = console
        address = urlsplit(stack.url)
        assert address.hostname is not None  # noqa: S101  a stack's URL has both
        assert address.port is not None  # noqa: S101
        key = (stack.var / "admin.key").read_text().strip()
        self._load = Load(mix(key), address.hostname, address.port, options.seed)
        self._client = Client(address.hostname, address.port)
        workers = {runtime: stack.pid(runtime) for runtime in ("torch", "tf")}
        self._sampler = Sampler(stack.pids("gateway"), workers, self._client)

    async def run(self) -> bool:
        """Whether all is well."""
        seconds = self._options.minutes * 60
        await self._load.prime(self._options.users)
        before = await self._sampler.at_rest(self._load.requests)
        begin_s = before.seconds
        verdicts = []
        try:
            under_load = await self._under_load(seconds)
            after = await self._sampler.at_rest(self._load.requests, before)
        except psutil.NoSuchProcess as error:
            verdicts.append(Verdict("processes", False, f"one ended: {error}"))
        else:
            warm_up = [each for each in under_load if each.seconds - begin_s < _WARM_UP_SHARE * seconds]
            verdicts += [
                verdict.of_memory(under_load[len(warm_up) :]),
                verdict.of_rest(before, after),
                verdict.of_threads([before, *warm_up], after),
            ]
            self._show([before, *under_load, after])
        await self._client.close()
        logs = [self._stack.var / "logs" / name for name in ("gateway.log.1", "gateway.log")]
        verdicts += [verdict.of_answers(self._load), verdict.of_log(logs)]
        samples.write(self._sampler.samples, self._options.out / "samples.csv")
        self._say(verdicts)
        return all(each.passed for each in verdicts)

    async def _under_load(self, seconds: float) -> list[Sample]:
        running = asyncio.create_task(self._load.run(self._options.users, rate=self._options.rate, seconds=seconds))
        taken = []
        while not running.done():
            await asyncio.wait([running], timeout=min(_EVERY_S, seconds / _SAMPLES_LEAST))
            if not running.done():
                taken.append(await self._sampler.take(self._load.requests))
        await running
        return taken

    def _show(self, taken: Sequence[Sample]) -> None:
        """About a dozen of the samples; the file has all."""
        table = Table("minute", "requests", "USS MB", "RSS MB", "fds", "threads", "tasks", *taken[0].others)
        step = max(1, len(taken) // 12)
        for each in [*taken[::step], taken[-1]]:
            memory = [f"{bytes_ / 1e6:.1f}" for bytes_ in (each.uss, each.rss)]
            counts = [str(count) for count in (each.fds, each.threads, each.tasks)]
            others = [f"{bytes_ / 1e6:.0f} MB" for bytes_ in each.others.values()]
            table.add_row(f"{each.seconds / 60:.1f}", f"{each.requests:,}", *memory, *counts, *others)
        self._console.print(table)

    def _say(self, verdicts: Sequence[Verdict]) -> None:
        kinds: dict[str, list[str]] = {}
        for (kind, status), count in sorted(self._load.answers.items()):
            kinds.setdefault(kind, []).append(f"{status} × {count:,}")
        table = Table("kind", "answers")
        for kind, answers in kinds.items():
            table.add_row(kind, ", ".join(answers))
        self._console.print(table)
        for example in self._load.examples:
            self._console.print(f"wrong: {example}", markup=False)
        for each in verdicts:
            self._console.print(f"{'passed' if each.passed else 'FAILED'}  {each.what}: {each.why}", markup=False)
        self._console.print(f"samples: {self._options.out / 'samples.csv'}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of load; the first quarter is warm-up")
    parser.add_argument("--users", type=int, default=8, help="clients at once")
    parser.add_argument("--rate", type=float, default=50, help="requests a second, of all users together, at most")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked in which order")
    parser.add_argument("--out", type=Path, default=Path("var/soak"), help="folder for samples.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder) / "var", **SETTINGS) as stack:
        for model in ("digits", "shapes"):
            stack.wait_until_ready(model)
        passed = asyncio.run(Soak(stack, options, Console(width=180)).run())
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
