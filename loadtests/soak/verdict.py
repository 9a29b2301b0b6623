"""What a soak must come to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.soak.growth import growth
from loadtests.soak.load import Load
from loadtests.soak.samples import Sample, left_behind

_MEANT = (503, 504)
"""Statuses that the log calls an error and that a soak provokes."""
_HARMLESS = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl::InitializeLog")
_MB = 1e6


@dataclass(frozen=True)
class Verdict:
    what: str
    passed: bool
    why: str


def of_answers(load: Load) -> Verdict:
    wrong = ", ".join(f"{count} × {kind}: {status}" for (kind, status), count in load.wrong.most_common(10))
    return Verdict("answers", not load.wrong, wrong or f"{load.requests:,} requests, each answered as it should be")


def of_log(paths: Sequence[Path]) -> Verdict:
    faults = [line for path in paths if path.exists() for line in _faults(path)]
    return Verdict("log", not faults, f"{len(faults)} faults, the first: {faults[0]}" if faults else "no fault")


def of_memory(samples: Sequence[Sample]) -> Verdict:
    """`samples`: under load, after the warm-up."""
    found = growth([each.seconds for each in samples], [each.uss for each in samples])
    low, high = found.low_per_h / _MB, found.high_per_h / _MB
    why = f"{found.level / _MB:.1f} MB, {found.per_h / _MB:+.2f} MB an hour, 95 % interval {low:+.2f} … {high:+.2f}"
    return Verdict("memory", not found.grows, why)


def of_rest(before: Sample, after: Sample) -> Verdict:
    left = left_behind(after, before)
    why = ", ".join(f"{count} {what} more than before" for what, count in left.items())
    same = f"{after.fds} file descriptors, {after.tasks} tasks, {after.children} children: no more than before"
    return Verdict("left behind", not left, why or same)


def of_threads(warm_up: Sequence[Sample], after: Sample) -> Verdict:
    """A pool keeps its threads, and is full after the warm-up."""
    most = max(each.threads for each in warm_up)
    return Verdict("threads", after.threads <= most, f"{after.threads} at rest, at most {most} in the warm-up")


def _faults(path: Path) -> Iterator[str]:
    """The lines that nobody meant: errors, but of requests that ended as meant, and what is no log line at all, such
    as a traceback. gRPC writes in a form of its own."""
    with path.open(errors="replace") as lines:
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                if not _HARMLESS.match(line):
                    yield line.strip()
                continue
            meant = said.get("event") == "request" and said.get("status") in _MEANT
            if said.get("level") in ("error", "critical") and not meant:
                yield line.strip()
