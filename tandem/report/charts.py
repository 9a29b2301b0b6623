"""Charts as SVG that stands in a page: no script, no font, nothing to fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from math import ceil, floor, log10

from evidence.document import Comparison, Distribution, Series
from tandem.report.content import STAGES

WIDTH, HEIGHT = 720.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 28.0, 28.0, 34.0
COLOURS = ("#d55e00", "#0072b2")
"""Of a and b: told apart by colour-blind readers, too."""
_STAGE_COLOURS = ("#999999", "#bbbbbb", "#dddddd", "#e69f00", "#56b4e9", "#009e73")


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    note: str


def charts(comparison: Comparison) -> Iterator[Chart]:
    if comparison.distribution is not None:
        note = "Share of the requests by latency, of the stages that depend on the target. The scale is logarithmic."
        yield Chart("Latency", _distribution(comparison.distribution), note)
    if any(figures.latency_ms["rpc"].p50.estimate is not None for figures in comparison.runtimes.values()):
        note = "Median of each stage. Medians of parts do not add up to the median of the whole exactly."
        yield Chart("Stages", _stages(comparison), note)
    if comparison.series is not None:
        yield Chart("Latency over time", _latency(comparison.series), "Of the total: p50 solid, p95 dashed.")
        yield Chart("Throughput over time", _throughput(comparison.series), "Requests answered a second.")


def _distribution(found: Distribution) -> str:
    low, high = (log10(edge) for edge in (found.edges_ms[0], found.edges_ms[-1]))
    shares = {name: [count / max(sum(counts), 1) for count in counts] for name, counts in found.counts.items()}
    most = max(max(each) for each in shares.values())
    area = _Area(low, high, most)
    lines = []
    for colour, heights in zip(COLOURS, shares.values(), strict=True):
        steps = []
        for left, right, share in zip(found.edges_ms[:-1], found.edges_ms[1:], heights, strict=True):
            steps += [area.at(log10(left), share), area.at(log10(right), share)]
        outline = " ".join([area.at(low, 0), *steps, area.at(high, 0)])
        lines.append(f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.25" stroke="{colour}"/>')
    ticks = [(log10(value), f"{value:g} ms") for value in _log_ticks(found.edges_ms[0], found.edges_ms[-1])]
    return area.svg("".join(lines), ticks, lambda value: f"{100 * value:.3g} %", list(shares))


def _stages(comparison: Comparison) -> str:
    medians = {
        name: [figures.latency_ms[stage].p50.estimate or 0.0 for stage in STAGES]
        for name, figures in comparison.runtimes.items()
    }
    longest = max(sum(each) for each in medians.values()) or 1.0
    scale = (WIDTH - 120 - _RIGHT) / longest
    parts = []
    for i, (name, values) in enumerate(medians.items()):
        x, y = 120.0, 34.0 + 44 * i
        parts.append(f'<text x="112" y="{y + 20:.0f}" text-anchor="end">{escape(name)}</text>')
        for stage, colour, value in zip(STAGES, _STAGE_COLOURS, values, strict=True):
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.0f}" width="{value * scale:.1f}" height="30" fill="{colour}">'
                f"<title>{stage}: {value:.3g} ms</title></rect>"
            )
            x += value * scale
    for i, (stage, colour) in enumerate(zip(STAGES, _STAGE_COLOURS, strict=True)):
        x = 120.0 + 98 * i
        parts.append(f'<rect x="{x:.0f}" y="6" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="16">{stage}</text>')
    parts.append(f'<text x="{WIDTH - _RIGHT:.0f}" y="136" text-anchor="end">{longest:.3g} ms</text>')
    return _svg("".join(parts), 144)


def _latency(found: Series) -> str:
    drawn = [value for line in found.lines.values() for value in (*line.p50_ms, *line.p95_ms) if value is not None]
    area = _Area(0, len(next(iter(found.lines.values())).requests), max(drawn, default=1.0))
    lines = []
    for colour, line in zip(COLOURS, found.lines.values(), strict=True):
        lines.append(area.line(line.p50_ms, colour, ""))
        lines.append(area.line(line.p95_ms, colour, 'stroke-dasharray="5 3"'))
    return area.svg("".join(lines), _times(found), lambda value: f"{value:.3g} ms", list(found.lines))


def _throughput(found: Series) -> str:
    rates = {name: [count / found.bucket_s for count in line.requests] for name, line in found.lines.items()}
    area = _Area(0, len(next(iter(rates.values()))), max(max(each) for each in rates.values()))
    lines = [area.line(rate, colour, "") for colour, rate in zip(COLOURS, rates.values(), strict=True)]
    return area.svg("".join(lines), _times(found), lambda value: f"{value:.3g}", list(rates))


class _Area:
    """The part of a chart between its axes; y begins at 0."""

    def __init__(self, low: float, high: float, most: float) -> None:
        self._low, self._high, self._most = low, high, most or 1.0

    def at(self, x: float, y: float) -> str:
        across = (x - self._low) / ((self._high - self._low) or 1.0)
        return f"{_LEFT + across * (WIDTH - _LEFT - _RIGHT):.1f},{self._down(y):.1f}"

    def line(self, values: Sequence[float | None], colour: str, style: str) -> str:
        """Broken where there is no value; one that stands alone is a dot."""
        parts: list[list[str]] = [[]]
        for i, value in enumerate(values):
            if value is None:
                parts.append([])
            else:
                parts[-1].append(self.at(i + 0.5, value))
        drawn = ""
        for points in filter(None, parts):
            if len(points) == 1:
                x, _, y = points[0].partition(",")
                drawn += f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>'
            else:
                drawn += f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" {style}/>'
        return drawn

    def svg(
        self, drawn: str, x_ticks: Sequence[tuple[float, str]], y_text: Callable[[float], str], names: Sequence[str]
    ) -> str:
        parts = []
        for value in _ticks(self._most):
            y, text = self._down(value), y_text(value)
            parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        for x, text in x_ticks:
            across = self.at(x, 0).partition(",")[0]
            parts.append(f'<text x="{across}" y="{HEIGHT - 12}" text-anchor="middle">{escape(text)}</text>')
        for i, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            x = _LEFT + 140 * i
            parts.append(f'<rect x="{x}" y="6" width="12" height="12" fill="{colour}"/>')
            parts.append(f'<text x="{x + 17}" y="16">{escape(name)}</text>')
        return _svg("".join(parts) + drawn, HEIGHT)

    def _down(self, y: float) -> float:
        return HEIGHT - _BOTTOM - y / self._most * (HEIGHT - _TOP - _BOTTOM)


def _svg(drawn: str, height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" font-size="12">{drawn}</svg>'


def _ticks(most: float) -> list[float]:
    """About four, at round values."""
    step = 10 ** floor(log10(most / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 5)
    return [step * i for i in range(floor(most / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    values = [m * 10**e for e in range(floor(log10(low)), ceil(log10(high)) + 1) for m in (1, 2, 5)]
    inside = [value for value in values if low <= value <= high]
    return inside[:: max(1, ceil(len(inside) / 10))]


def _times(found: Series) -> list[tuple[float, str]]:
    buckets = len(next(iter(found.lines.values())).requests)
    form = "%m-%d %H:%M" if found.bucket_s * buckets > 86400 else "%H:%M:%S"
    places = [buckets * (i + 0.5) / 5 for i in range(5)]
    return [(x, datetime.fromtimestamp(found.start + x * found.bucket_s, UTC).strftime(form)) for x in places]
