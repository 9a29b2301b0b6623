"""The end of a run, by runtime: the two of them side by side, and the ratio."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TypedDict

from locust.stats import RequestStats, StatsEntry

from loadtests.users import RUNTIMES, runtime_of

_console = logging.getLogger("locust.stats_logger")  # where locust prints its tables
_PERCENTILES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}


class Figures(TypedDict):
    requests: int
    failures: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Summary(TypedDict):
    runtimes: dict[str, Figures]
    torch_to_tf: dict[str, float | None]
    """Of the rate and each percentile; None where tf's is 0. Empty unless both answered."""


def summarise(stats: RequestStats) -> Summary:
    """Every row in which one runtime answered, directly asked or by the model's policy, added up by runtime."""
    runtimes: dict[str, Figures] = {}
    for runtime in RUNTIMES:
        rows = [entry for entry in stats.entries.values() if runtime_of(entry.name) == runtime and entry.num_requests]
        if rows:
            runtimes[runtime] = _figures(stats, rows)
    ratios: dict[str, float | None] = {}
    if len(runtimes) == len(RUNTIMES):
        torch, tf = runtimes["torch"], runtimes["tf"]
        ratios = {
            "requests_per_s": _ratio(torch["requests_per_s"], tf["requests_per_s"]),
            "p50_ms": _ratio(torch["p50_ms"], tf["p50_ms"]),
            "p95_ms": _ratio(torch["p95_ms"], tf["p95_ms"]),
            "p99_ms": _ratio(torch["p99_ms"], tf["p99_ms"]),
        }
    return {"runtimes": runtimes, "torch_to_tf": ratios}


def _figures(stats: RequestStats, rows: list[StatsEntry]) -> Figures:
    total = StatsEntry(stats, "", "")
    for row in rows:
        total.extend(row)
    p50, p95, p99 = (total.get_response_time_percentile(each) for each in _PERCENTILES.values())
    return {
        "requests": total.num_requests,
        "failures": total.num_failures,
        "requests_per_s": round(total.total_rps, 2),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


def _ratio(torch: float, tf: float) -> float | None:
    return round(torch / tf, 3) if tf else None


def write(summary: Summary, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(summary, indent=2) + "\n")


def show(summary: Summary) -> None:
    for line in _lines(summary):
        _console.info(line)


def _lines(summary: Summary) -> list[str]:
    if not summary["runtimes"]:
        return []
    lines = [
        "By runtime",
        f"{'':12}{'# reqs':>10}{'# fails':>10}{'req/s':>10}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}",
    ]
    for runtime, each in summary["runtimes"].items():
        counts = f"{runtime:12}{each['requests']:>10}{each['failures']:>10}{each['requests_per_s']:>10.2f}"
        lines.append(counts + "".join(f"{ms:>10g}" for ms in (each["p50_ms"], each["p95_ms"], each["p99_ms"])))
    if summary["torch_to_tf"]:
        ratios = ("–" if ratio is None else f"{ratio:.2f}" for ratio in summary["torch_to_tf"].values())
        lines.append(f"{'torch / tf':32}" + "".join(f"{ratio:>10}" for ratio in ratios))
    return [*lines, ""]
