"""What a comparison says: the answer of `GET /v1/comparison`, and of `tandem report --json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from modelkit.spec import ModelName, RuntimeName

Looks = Literal["one look", "any number of looks"]
"""How often data may be looked at before the 95 % of an interval no longer hold."""
Measure = Literal["paired", "unpaired"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Measured(_Part):
    """A figure with its 95 % interval."""

    estimate: float | None
    """None where there is no observation."""
    low: float | None
    """None where the interval is open: beyond all that was measured. Both ends: too few effective samples."""
    high: float | None
    looks: Looks
    n: int
    """Observations."""
    effective_n: float
    """Independent observations that would tell as much."""
    needed: int | None
    """About how many observations it takes in all, where there are too few for an interval."""


class Quantiles(_Part):
    p50: Measured
    p95: Measured
    p99: Measured


class WorkerPart(_Part):
    mean: float
    """Without an interval. Means add up, as quantiles do not."""
    p50: Measured
    p95: Measured


class Target(_Part):
    """One of the two targets that are compared."""

    runtime: RuntimeName
    version: int


def target_names(a: Target, b: Target) -> tuple[str, str]:
    """What a document calls them: as short as they can be told apart."""
    if a == b:
        return a.runtime, f"{a.runtime} again"
    if a.runtime != b.runtime and a.version == b.version:
        return a.runtime, b.runtime
    return f"{a.runtime}@{a.version}", f"{b.runtime}@{b.version}"


class TargetFigures(Target):
    requests: int
    images: int
    """Pictures answered."""
    images_per_s: float
    """Answered, since the first request that was looked at: what was asked of it, not what it can do."""
    outcomes: dict[str, int]
    """Requests by how they ended."""
    error_rate: Measured
    """Share of the requests that were sent and failed or timed out. One look."""
    error_rate_any_looks: Measured
    latency_ms: dict[str, Quantiles]
    """Milliseconds by stage, and `total`, of the requests that were answered by a warm target; a time-out is slower
    than all of them in `total`. `compared`: the stages that depend on the target. One look."""
    worker_ms: dict[str, WorkerPart] = {}
    """Milliseconds of what `rpc` is made of, of the same requests, as far as their worker says so: `queue`, `inference`
    and, where both are known, `transport`, the rest. Of several pictures in a request the longest of each. One look."""


class Paired(_Part):
    """About the same tensors at about the same time.

    The latency of a pair's side is rpc and postprocess, and queue where neither side is a shadow: the stages that
    depend on the target.
    """

    n: int
    """Pairs."""
    complete: int
    """Pairs that have both latencies."""
    censored: dict[str, int]
    """Pairs by why they lack a latency: dropped, timed out, failed."""
    a_called_first: int | None = None
    """Pairs in which a was called before b."""
    median_ms: tuple[float, float] | None
    """Of a and b, over the complete pairs."""
    difference_ms: Measured | None = None
    """Median of a's latency less b's. One look."""
    ratio: Measured
    """Median over pairs of a's latency over b's. One look."""
    ratio_any_looks: Measured
    quantile_ratios: Quantiles
    """a's quantile over b's. One look."""
    quantile_ratios_any_looks: Quantiles | None = None


class Unpaired(_Part):
    """Of requests that were spread over both targets by chance, stratified by time."""

    n: tuple[int, int]
    """Requests answered by a and b."""
    strata: int
    median_ms: tuple[float, float] | None
    ratio: Measured
    """a's median over b's within a stratum. One look."""
    ratio_any_looks: Measured


class Agreement(_Part):
    images: int
    """Pictures that both answered."""
    agreeing: int
    share: Measured
    """One look."""
    share_any_looks: Measured
    max_score_difference: float | None


class Distribution(_Part):
    """How often which latency was: of the complete pairs, where there are any, else of each target's requests."""

    edges_ms: list[float]
    """Of the bins, spaced evenly by their logarithm; one more than there are bins."""
    counts: dict[str, list[int]]
    """By target."""


class Line(_Part):
    """One target over time: a value for each time bucket."""

    requests: list[int]
    """Answered."""
    p50_ms: list[float | None]
    """Of the total; None where nothing was answered."""
    p95_ms: list[float | None]


class Series(_Part):
    start: float
    """Unix time at which the first time bucket begins."""
    bucket_s: float
    lines: dict[str, Line]
    """By target."""


class Comparison(_Part):
    model: ModelName
    since: float
    """Unix time from which on requests count. While it stands still, a bound for any number of looks holds. It is later
    than what was asked for where the log does not reach so far, or holds more than can be counted; `notes` says so."""
    until: float
    window_s: float
    """What was asked for."""
    runtimes: dict[str, TargetFigures]
    """Two, a first, by name."""
    measure: Measure | None
    """What the verdict rests on; None where nothing was comparable."""
    paired: Paired
    unpaired: Unpaired
    agreement: Agreement
    finding: Literal["faster", "alike", "no difference shown yet", "too few effective samples", "do not compare"]
    faster: str | None
    """Name of the target that is faster, claimed by the bound for any number of looks."""
    objections: tuple[str, ...]
    """Why the two must not be compared."""
    excluded: dict[str, int]
    """Requests that are in no measure between the two, by why: chosen by speed, cold, cancelled, not over yet."""
    notes: tuple[str, ...] = ()
    """What else a reader must know: sentences."""
    environment: dict[str, Any]
    """Versions, hardware, devices, precision, settings."""
    distribution: Distribution | None = None
    series: Series | None = None
    verdict: str
    """One sentence."""
