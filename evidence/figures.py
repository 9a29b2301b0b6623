"""Figures of one target, and the two beside each other, as a comparison's document has them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Final

import numpy as np

from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Floats, Observations, Outcome
from comparison.rate import rate
from comparison.ratio import latency_quantile
from evidence.document import Distribution, Line, Measured, Quantiles, Series, Target, TargetFigures, WorkerPart
from evidence.pairing import LEAST_S, Indices, compared_s, observations
from evidence.rows import OUTCOMES, STAGES, WORKER_PARTS, Role, Rows

BINS: Final = 60
BUCKETS: Final = 60
_OK, _CANCELLED = OUTCOMES.index("ok"), OUTCOMES.index("cancelled")
_MS: Final = 1e3


def measured(result: Interval | TooFew, looks: Looks = Looks.ONE, *, scale: float = 1.0) -> Measured:
    """`looks`: those that were asked for, where there is no interval to say it."""
    if isinstance(result, TooFew):
        estimate = _finite(result.estimate, scale)
        return Measured(
            estimate=estimate,
            low=None,
            high=None,
            looks=looks.value,
            n=result.n,
            effective_n=result.effective_n,
            needed=result.needed,
        )
    return Measured(
        estimate=_finite(result.estimate, scale),
        low=_finite(result.low, scale),
        high=_finite(result.high, scale),
        looks=result.looks.value,
        n=result.n,
        effective_n=result.effective_n,
        needed=None,
    )


def target_figures(rows: Rows, mine: Indices, target: Target, *, seconds: float) -> TargetFigures:
    """Of the rows with these numbers, over that time."""
    outcome = rows["outcome"][mine]
    # A second attempt is made where another one failed or was late: it is no sample of what the target does.
    judged = (outcome != _CANCELLED) & (rows["role"][mine] != Role.OTHER)
    errors = observations(rows, mine[judged], rows["total"]).errors
    warm = mine[judged & ~rows["cold"][mine]]
    answered = warm[rows["outcome"][warm] == _OK]
    images = int(rows["images"][mine[outcome == _OK]].sum())
    stages = {stage: rows[stage] for stage in STAGES} | {"compared": compared_s(rows)}
    counts = np.bincount(outcome, minlength=len(OUTCOMES))
    return TargetFigures(
        runtime=target.runtime,
        version=target.version,
        requests=len(mine),
        images=images,
        images_per_s=images / seconds if seconds > 0 else 0.0,
        outcomes={name: int(count) for name, count in zip(OUTCOMES, counts, strict=True) if count},
        error_rate=measured(rate(errors)),
        error_rate_any_looks=measured(rate(errors, Looks.ANY), Looks.ANY),
        latency_ms={
            **{stage: _stage(column[answered]) for stage, column in stages.items()},
            "total": _quantiles(observations(rows, warm, rows["total"])),
        },
        worker_ms=_worker(rows, answered),
    )


def distribution(sides: Mapping[str, Observations]) -> Distribution | None:
    answered = {name: side.seconds[side.ok] * _MS for name, side in sides.items()}
    everything = np.concatenate(list(answered.values()))
    if not len(everything):
        return None
    low, high = float(everything.min()), float(everything.max())
    edges = np.geomspace(low * 0.999, high * 1.001, BINS + 1)
    return Distribution(
        edges_ms=[float(edge) for edge in edges],
        counts={name: np.histogram(ms, edges)[0].tolist() for name, ms in answered.items()},
    )


def series(rows: Rows, sides: Mapping[str, Indices], *, until: float) -> Series | None:
    """Of the totals of the rows with these numbers, in time buckets from the first row on."""
    if not len(rows):
        return None
    start = float(rows["time"][0])
    bucket_s = (until - start) / BUCKETS
    if bucket_s <= 0:
        return None
    lines = {}
    for name, mine in sides.items():
        answered = mine[rows["outcome"][mine] == _OK]
        bucket = np.clip((rows["time"][answered] - start) / bucket_s, 0, BUCKETS - 1).astype(np.int64)
        groups = np.split(rows["total"][answered] * _MS, np.searchsorted(bucket, np.arange(1, BUCKETS)))
        quantiles = [np.quantile(group, (0.5, 0.95)).tolist() if len(group) else [None, None] for group in groups]
        lines[name] = Line(
            requests=[len(group) for group in groups],
            p50_ms=[p50 for p50, _ in quantiles],
            p95_ms=[p95 for _, p95 in quantiles],
        )
    return Series(start=start, bucket_s=bucket_s, lines=lines)


def _worker(rows: Rows, answered: Indices) -> dict[str, WorkerPart]:
    """What rpc is made of; of what no worker says there is none."""
    parts = {part: rows[f"worker_{part}"][answered] for part in WORKER_PARTS}
    # The longest queue and the longest inference of a request need not be of the same picture.
    parts["transport"] = np.maximum(rows["rpc"][answered] - sum(parts.values()), 0.0)
    known = {part: seconds[~np.isnan(seconds)] for part, seconds in parts.items()}
    return {
        part: WorkerPart(mean=float(seconds.mean()) * _MS, p50=quantiles.p50, p95=quantiles.p95)
        for part, seconds in known.items()
        if len(seconds)
        for quantiles in (_stage(seconds),)
    }


def _stage(seconds: Floats) -> Quantiles:
    reached = seconds[~np.isnan(seconds)]
    return _quantiles(Observations(np.maximum(reached, LEAST_S), np.full(len(reached), Outcome.OK, dtype=np.int8)))


def _quantiles(target: Observations) -> Quantiles:
    return Quantiles(
        **{
            name: measured(latency_quantile(target, p), scale=_MS)
            for name, p in {"p50": 0.5, "p95": 0.95, "p99": 0.99}.items()
        }
    )


def _finite(value: float | None, scale: float) -> float | None:
    return value * scale if value is not None and isfinite(value) else None
