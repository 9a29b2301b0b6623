"""What is measured of the gateway's and the workers' processes while a soak runs."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from loadtests.soak.client import Client, request

_PAUSE_S = 1.0


@dataclass(frozen=True)
class Sample:
    """Of the gateway, all its processes together, but for the memory of `others`."""

    seconds: float
    """Since the sampling began."""
    requests: int
    """Made until then."""
    rss: int
    """Bytes in RAM."""
    uss: int
    """Bytes that would be free if it ended."""
    fds: int
    threads: int
    tasks: int
    """As `tandem_tasks` says."""
    children: int
    """Processes that it has started, such as the one of the statistics."""
    others: Mapping[str, int]
    """By worker, bytes in RAM of its process and those that it started."""


class Sampler:
    def __init__(self, gateway: Sequence[int], workers: Mapping[str, int], client: Client) -> None:
        """`gateway`: the ids of its processes. `workers`: by name, the id of the first process."""
        self._gateway = [psutil.Process(pid) for pid in gateway]
        self._workers = {name: psutil.Process(pid) for name, pid in workers.items()}
        self._client = client
        self._start_s = time.monotonic()
        self.samples: list[Sample] = []

    async def take(self, requests: int) -> Sample:
        """Raises psutil.NoSuchProcess when one has ended."""
        # The scrape first: its connection is open from the first sample on, and its task is in every count.
        metrics = (await self._client.ask(request("GET", "/metrics"))).body.decode()
        (tasks,) = (line.split()[1] for line in metrics.splitlines() if line.startswith("tandem_tasks "))
        memory = [each.memory_full_info() for each in self._gateway]
        sample = Sample(
            seconds=round(time.monotonic() - self._start_s, 3),
            requests=requests,
            rss=sum(each.rss for each in memory),
            uss=sum(each.uss for each in memory),
            fds=sum(each.num_fds() for each in self._gateway),
            threads=sum(each.num_threads() for each in self._gateway),
            tasks=int(float(tasks)),
            children=len({child.pid for each in self._gateway for child in each.children(recursive=True)}),
            others={name: _whole_rss(each) for name, each in self._workers.items()},
        )
        self.samples.append(sample)
        return sample

    async def at_rest(self, requests: int, before: Sample | None = None, *, patience_s: float = 90.0) -> Sample:
        """Taken again and again until the gateway holds no more than `before`, or as much as a moment ago without one;
        or for `patience_s`: the process of the statistics ends a minute after its last question."""
        end_s = time.monotonic() + patience_s
        earlier = before or await self.take(requests)
        while True:
            await asyncio.sleep(_PAUSE_S)
            sample = await self.take(requests)
            less = before is None and left_behind(earlier, sample)
            if (not left_behind(sample, earlier) and not less) or time.monotonic() > end_s:
                return sample
            earlier = before or sample


def left_behind(sample: Sample, before: Sample) -> dict[str, int]:
    """How many more of each it holds than `before`."""
    more = {name: getattr(sample, name) - getattr(before, name) for name in ("fds", "tasks", "children")}
    return {name: count for name, count in more.items() if count > 0}


def write(samples: Sequence[Sample], path: Path) -> None:
    """As CSV, bytes and counts, for whoever wants to draw it."""
    names = [field.name for field in fields(Sample) if field.name != "others"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, [*names, *samples[0].others])
        rows.writeheader()
        for sample in samples:
            row = asdict(sample)
            rows.writerow(row.pop("others") | row)


def _whole_rss(process: psutil.Process) -> int:
    total: int = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:  # it ended in between, and has none any more
            continue
    return total
