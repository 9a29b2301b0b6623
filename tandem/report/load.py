"""Throughput and cost, which only a load run can show: the summary that `loadtests` writes, and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError


class _Figures(BaseModel):
    requests: int
    failures: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class _Summary(BaseModel):
    runtimes: dict[str, _Figures]


@dataclass(frozen=True)
class LoadRun:
    """One runtime in a load run; each request is one picture."""

    runtime: str
    figures: _Figures
    price_per_hour: float | None

    @property
    def answered_per_s(self) -> float:
        figures = self.figures
        share = 1 - figures.failures / figures.requests if figures.requests else 0.0
        return figures.requests_per_s * share

    @property
    def cost_per_million(self) -> float | None:
        """Of pictures, in the price's currency, at this throughput; None without a price or an answer."""
        if self.price_per_hour is None or not self.answered_per_s:
            return None
        return self.price_per_hour / (self.answered_per_s * 3600) * 1e6


def read_load(file: Path, prices: Mapping[str, float]) -> list[LoadRun]:
    """Raises ValueError, and OSError."""
    try:
        summary = _Summary.model_validate_json(file.read_text())
    except ValidationError:
        raise ValueError(
            f"{file} is no summary of a load run: give the file that locust wrote with --summary-json."
        ) from None
    if unknown := prices.keys() - summary.runtimes.keys():
        raise ValueError(
            f"{', '.join(sorted(unknown))} has a price and is not in {file}. It has: {', '.join(summary.runtimes)}."
        )
    return [LoadRun(name, figures, prices.get(name)) for name, figures in summary.runtimes.items()]


def parse_price(text: str) -> tuple[str, float]:
    """`torch=1.20`: what an hour of that runtime's workers costs. Raises ValueError."""
    runtime, _, price = text.partition("=")
    try:
        amount = float(price)
    except ValueError:
        amount = -1.0
    if not runtime or not 0 <= amount < float("inf"):
        raise ValueError(f"{text!r} is no price. Write RUNTIME=PRICE, an hour of its workers: torch=1.20.")
    return runtime, amount
