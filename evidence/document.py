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


class Target(_Part):
    """One of the two targets that are compared."""

    runtime: RuntimeName
    version: int


class TargetFigures(Target):
    requests: int
    images: int
    """Pictures answered."""
    images_per_s: float
    """Answered, over the time that was looked at: what was asked of it, not what it can do."""
    outcomes: dict[str, int]
    """Requests by how they ended."""
    error_rate: Measured
    """Share of the requests that were sent and failed or timed out. One look."""
    error_rate_any_looks: Measured
    latency_ms: dict[str, Quantiles]
    """By stage, and `total`: milliseconds of the requests that were answered. One look."""


class Paired(_Part):
    """About the same tensors at about the same time."""

    n: int
    """Pairs."""
    complete: int
    """Pairs that have both latencies."""
    censored: dict[str, int]
    """Pairs by why they lack a latency: dropped, timed out, failed."""
    median_ms: tuple[float, float] | None
    """Of a and b, over the complete pairs."""
    ratio: Measured
    """Median over pairs of a's latency over b's. One look."""
    ratio_any_looks: Measured
    quantile_ratios: Quantiles
    """a's quantile over b's. One look."""


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


class Comparison(_Part):
    model: ModelName
    since: float
    """Unix time from which on requests count. It stands still while a bound for any number of looks is to hold."""
    until: float
    window_s: float
    """What was asked for; since lies at least so far back, unless the log does not reach."""
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
    """Requests that were left out, by why: chosen by speed, cold."""
    environment: dict[str, Any]
    """Versions, hardware, devices, precision, settings."""
    verdict: str
    """One sentence."""
