"""Gives mutants of real files to what reads them: `python -m tests.hostile.fuzz --mutations 100000`.

Each mutant is made of the seed and its number alone. Workers are processes: one that crashes, or whose mutant takes
longer than its time on the processor, is found by how it ends; the mutant is saved, and another worker goes on behind
it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.targets import TARGETS, Target

CPU_S = 1.0
"""A mutant may take so long on the processor."""
MEMORY = 1_500_000_000
"""Bytes of address space that a worker may have."""
_RECORD = struct.Struct("<q")


@dataclass
class Found:
    counts: Counter[str] = field(default_factory=Counter)
    """Mutants by what they are of, and what became of them."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Numbers of the mutants that should not have ended as they did, and how they did."""
    slowest_s: float = 0.0

    def add(self, other: Found) -> None:
        self.counts += other.counts
        self.faults += other.faults
        self.slowest_s = max(self.slowest_s, other.slowest_s)


def chance_of(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed} {number}")  # noqa: S311  not for secrets


def fuzz(target: str, mutations: int, *, seed: int = 0, jobs: int = 1) -> Found:
    """`target` is one of TARGETS, or `module:function` that gives one."""
    edges = [mutations * job // jobs for job in range(jobs + 1)]
    found = Found()
    with ThreadPoolExecutor(jobs) as pool:
        for part in pool.map(lambda job: _range(target, edges[job], edges[job + 1], seed), range(jobs)):
            found.add(part)
    found.faults.sort()
    return found


def _range(target: str, first: int, stop: int, seed: int) -> Found:
    """The mutants from `first` on, in one worker after the other."""
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        while first < stop:
            record, answer = Path(folder, "number"), Path(folder, "found.json")
            record.write_bytes(_RECORD.pack(first))
            answer.unlink(missing_ok=True)
            command = [sys.executable, "-m", "tests.hostile.fuzz", "--target", target, "--seed", str(seed)]
            worker = subprocess.run(
                [*command, "--worker", str(first), str(stop), folder], stderr=subprocess.PIPE, text=True, check=False
            )
            if answer.exists():
                part = json.loads(answer.read_text())
                faults = [(number, how) for number, how in part["faults"]]
                found.add(Found(Counter(part["counts"]), faults, part["slowest_s"]))
                return found
            (at,) = _RECORD.unpack(record.read_bytes())
            if worker.returncode >= 0:
                raise RuntimeError(f"A worker ended with {worker.returncode} at {at}:\n{worker.stderr}")
            how = "takes too long" if -worker.returncode == signal.SIGPROF else signal.Signals(-worker.returncode).name
            found.add(Found(Counter({"lost with their worker": at - first, how: 1}), [(at, how)]))
            first = at + 1
    return found


def _work(target: Target, first: int, stop: int, seed: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    found = Found()
    with (folder / "number").open("r+b") as file, mmap.mmap(file.fileno(), 0) as record:
        for number in range(first, stop):
            _RECORD.pack_into(record, 0, number)
            kind, data = target.make(chance_of(seed, number))
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            start_s = time.process_time()
            try:
                outcome = target.run(data)
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                outcome = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
                found.faults.append((number, outcome))
                outcome = "a fault"
            signal.setitimer(signal.ITIMER_PROF, 0)
            found.slowest_s = max(found.slowest_s, time.process_time() - start_s)
            found.counts[f"{kind}: {outcome}"] += 1
    part = {"counts": found.counts, "faults": found.faults, "slowest_s": found.slowest_s}
    (folder / "found.json").write_text(json.dumps(part))


def _target(name: str) -> Target:
    if name in TARGETS:
        return TARGETS[name]()
    module, _, function = name.partition(":")
    made: Target = getattr(__import__(module, fromlist=[function]), function)()
    return made


def _lines(found: Found, saved: Path) -> Iterator[str]:
    for outcome, count in sorted(found.counts.items()):
        yield f"{count:>9,}  {outcome}"
    yield f"The slowest took {found.slowest_s * 1000:.0f} ms of the processor."
    for number, how in found.faults:
        yield f"Mutant {number}: {how}. It is in {saved / str(number)}."
    yield f"{len(found.faults)} faults." if found.faults else "No fault."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="pictures", help=f"one of {', '.join(TARGETS)}, or module:function")
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="another one gives other mutants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=Path, default=Path("var/fuzz"), help="folder for what should not have happened")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        first, stop, folder = options.worker
        with closing(_target(options.target)) as target:
            _work(target, int(first), int(stop), options.seed, Path(folder))
        return 0
    found = fuzz(options.target, options.mutations, seed=options.seed, jobs=options.jobs)
    if found.faults:
        options.save.mkdir(parents=True, exist_ok=True)
        with closing(_target(options.target)) as target:
            for number, _ in found.faults:
                (options.save / str(number)).write_bytes(target.make(chance_of(options.seed, number))[1])
    print(*_lines(found, options.save), sep="\n")  # noqa: T201
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
