"""What a report says, as tables: the page and the Markdown are made of the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from evidence.document import Comparison, Measured, Quantiles
from tandem.report.disagreements import Kept
from tandem.report.load import LoadRun
from tandem.report.requirement import Judged

NAMES = ("p50", "p95", "p99")
STAGES = ("receive", "decode", "preprocess", "queue", "rpc", "postprocess")


@dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def title(comparison: Comparison) -> str:
    a, b = comparison.runtimes
    return f"{comparison.model}: {a} against {b}"


def period(comparison: Comparison) -> str:
    return f"Requests from {_time(comparison.since)} until {_time(comparison.until)}."


def warnings(comparison: Comparison) -> list[str]:
    """What must be read before any figure."""
    objections = [f"Do not compare: {each}." for each in comparison.objections]
    return [*objections, *comparison.notes]


def summary(comparison: Comparison, judged: Sequence[Judged]) -> Iterator[Table]:
    """What comes before the charts."""
    if judged:
        rows = [(str(each.requirement), each.state.value, each.why) for each in judged]
        yield Table("Requirements", ("required", "", "why"), rows)
    yield _between(comparison)


def details(comparison: Comparison, load: Sequence[LoadRun], kept: Sequence[Kept]) -> Iterator[Table]:
    yield _targets(comparison)
    yield _stages(comparison)
    if any(figures.worker_ms for figures in comparison.runtimes.values()):
        yield _worker(comparison)
    yield _agreement(comparison)
    if kept:
        rows = [(str(each.id), each.time, each.request_id, *each.said) for each in kept]
        yield Table("Disagreements", ("id", "time, UTC", "request", *comparison.runtimes), rows, "Those that are kept.")
    if load:
        yield _load(load)
    yield _counted(comparison)
    environment = list(_flat(comparison.environment))
    yield Table("Environment", ("what", ""), environment, "The gateway's machine; workers may be on others.")


def _between(comparison: Comparison) -> Table:
    a, b = comparison.runtimes
    pairs = comparison.paired
    rows = []
    if pairs.median_ms is not None:
        rows.append(("median of pairs, ms", f"{pairs.median_ms[0]:.4g} against {pairs.median_ms[1]:.4g}", ""))
    if pairs.difference_ms is not None:
        rows.append(("difference, median of pairs, ms", _said(pairs.difference_ms), pairs.difference_ms.looks))
    rows.append((f"ratio, median over {pairs.complete:,} pairs", _said(pairs.ratio), pairs.ratio.looks))
    rows.append(("the same", _said(pairs.ratio_any_looks), pairs.ratio_any_looks.looks))
    for quantiles in filter(None, (pairs.quantile_ratios, pairs.quantile_ratios_any_looks)):
        for name in NAMES:
            found: Measured = getattr(quantiles, name)
            rows.append((f"ratio of {name}", _said(found), found.looks))
    if any(comparison.unpaired.n):
        spread = comparison.unpaired
        said = f"{spread.n[0]:,} and {spread.n[1]:,} requests spread by chance"
        rows.append((f"ratio, {said}", _said(spread.ratio), spread.ratio.looks))
        rows.append(("the same", _said(spread.ratio_any_looks), spread.ratio_any_looks.looks))
    note = f"Of {a} over {b}: below 1, {a} is faster. Of the stages that depend on the target: queue, rpc, postprocess."
    return Table("Between the two", ("what", "estimate and 95 % interval", "holds for"), rows, note)


def _targets(comparison: Comparison) -> Table:
    figures = comparison.runtimes
    rows = [
        ("version", *(f"{each.runtime}@{each.version}" for each in figures.values())),
        ("requests", *(f"{each.requests:,}" for each in figures.values())),
        ("how they ended", *(_counts(each.outcomes) for each in figures.values())),
        ("images a second", *(f"{each.images_per_s:.3g}" for each in figures.values())),
        ("error rate, %", *(_said(each.error_rate, 100) for each in figures.values())),
        *(
            (f"{name} of the total, ms", *(_said(getattr(each.latency_ms["total"], name)) for each in figures.values()))
            for name in NAMES
        ),
    ]
    note = "Intervals of one look. Images a second: what was asked of a target, not what it can do."
    return Table("Each target", ("what", *figures), rows, note)


def _stages(comparison: Comparison) -> Table:
    rows = []
    for stage in STAGES:
        for name, figures in comparison.runtimes.items():
            quantiles: Quantiles = figures.latency_ms[stage]
            rows.append((stage, name, *(_said(getattr(quantiles, each)) for each in NAMES)))
    note = "Milliseconds, intervals of one look. Receive, decode and preprocess are the gateway's, before the target."
    return Table("Stages", ("stage", "target", *NAMES), rows, note)


def _worker(comparison: Comparison) -> Table:
    rows = []
    for name, figures in comparison.runtimes.items():
        for part, found in figures.worker_ms.items():
            rows.append((part, name, _number(found.mean), _said(found.p50), _said(found.p95)))
        if not figures.worker_ms:
            rows.append(("not known", name, "–", "–", "–"))
    note = (
        "Milliseconds of rpc: waiting for the worker (torch: the way there included), being computed, and the rest. "
        "Intervals of one look; means have none, and add up. TensorFlow Serving says nothing of one request: its "
        "metrics page has means of all."
    )
    return Table("Where the time of rpc goes", ("part", "target", "mean", "p50", "p95"), rows, note)


def _agreement(comparison: Comparison) -> Table:
    found = comparison.agreement
    difference = "–" if found.max_score_difference is None else f"{found.max_score_difference:.2g}"
    rows = [
        ("images that both answered", f"{found.images:,}", ""),
        ("the two disagree on", f"{found.images - found.agreeing:,}", ""),
        ("they agree on, %", _said(found.share, 100), found.share.looks),
        ("the same", _said(found.share_any_looks, 100), found.share_any_looks.looks),
        ("greatest difference of a score", difference, ""),
    ]
    return Table("Agreement", ("what", "", "holds for"), rows)


def _load(load: Sequence[LoadRun]) -> Table:
    rows = [
        (
            each.runtime,
            f"{each.figures.requests:,}",
            f"{each.figures.failures:,}",
            f"{each.answered_per_s:.4g}",
            *(f"{ms:g}" for ms in (each.figures.p50_ms, each.figures.p95_ms, each.figures.p99_ms)),
            "–" if each.price_per_hour is None else f"{each.price_per_hour:g}",
            "–" if each.cost_per_million is None else f"{each.cost_per_million:.4g}",
        )
        for each in load
    ]
    header = ("runtime", "requests", "failures", "images a second", "p50 ms", "p95 ms", "p99 ms")
    note = (
        "From a load run, not from the requests above, and without intervals. It is the throughput at saturation, and "
        "the cost that of a full machine, only if the run had users enough that more of them would not raise it."
    )
    return Table("Load run", (*header, "price of an hour", "cost of a million images"), rows, note)


def _counted(comparison: Comparison) -> Table:
    pairs = comparison.paired
    rows = [
        ("pairs", f"{pairs.n:,}"),
        *((f"pairs without two latencies: {why}", f"{count:,}") for why, count in pairs.censored.items()),
        *((f"requests in no ratio: {why}", f"{count:,}") for why, count in comparison.excluded.items()),
    ]
    return Table("What was counted", ("what", ""), rows)


def _said(found: Measured, scale: float = 1.0) -> str:
    """Estimate and interval, or how many observations it takes."""
    if found.estimate is None and found.needed is not None:
        return "–"
    estimate = "open" if found.estimate is None else _number(found.estimate * scale)
    if found.needed is not None:
        return f"{estimate} (no interval: {found.n:,} of about {found.needed:,} needed)"
    return (
        f"{estimate} ({' … '.join('open' if end is None else _number(end * scale) for end in (found.low, found.high))})"
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in outcomes.items()) or "–"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", str(value) or "not known"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
