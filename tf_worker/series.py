"""Counters and histograms as TensorFlow keeps them, and the page that TensorFlow Serving makes of them.

Of our own, and not prometheus-client's: that adds `_total` to a counter's name and counts a value that equals a bound
below it. TensorFlow does neither, and a dashboard sees the difference. Facts from TensorFlow's
lib/monitoring/sampler.cc and lib/histogram/histogram.cc (bounds, and that they are exclusive) and TensorFlow Serving's
util/prometheus_exporter.cc (names, the form of the page).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import mul
from threading import Lock
from typing import Protocol

Values = tuple[str, ...]
"""A cell's label values, in the order of the label names."""


class Series(Protocol):
    def lines(self) -> Iterator[str]:
        """The series in Prometheus's text format."""


class Counter:
    """A total that only grows. Thread-safe."""

    def __init__(self, name: str, *labels: str) -> None:
        self._name = _prometheus_name(name)
        self._labels = labels
        self._cells: dict[Values, int] = {}
        self._lock = Lock()

    def add(self, amount: int, *values: str) -> None:
        with self._lock:
            self._cells[values] = self._cells.get(values, 0) + amount

    def lines(self) -> Iterator[str]:
        with self._lock:
            cells = list(self._cells.items())
        yield f"# TYPE {self._name} counter"
        for values, total in cells:
            yield f"{self._name}{{{_label_text(self._labels, values)}}} {total}"


@dataclass
class _Histogram:
    counts: list[int]
    sum: float = 0.0
    lock: Lock = field(default_factory=Lock)


class Sampler:
    """A histogram with the bounds scale × growth^i. A value that equals a bound is in the next bucket. Thread-safe."""

    def __init__(self, name: str, *labels: str, scale: float, growth: float, buckets: int) -> None:
        self._name = _prometheus_name(name)
        self._labels = labels
        self._bounds = list(accumulate(repeat(growth, buckets - 1), mul, initial=scale))
        self._shown_bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        self._cells: dict[Values, _Histogram] = {}
        self._making = Lock()

    def add(self, value: float, *values: str) -> None:
        cell = self._cells.get(values) or self._make(values)
        place = bisect_right(self._bounds, value)
        with cell.lock:
            cell.counts[place] += 1
            cell.sum += value

    def _make(self, values: Values) -> _Histogram:
        with self._making:
            return self._cells.setdefault(values, _Histogram([0] * len(self._shown_bounds)))

    def lines(self) -> Iterator[str]:
        with self._making:
            cells = list(self._cells.items())
        yield f"# TYPE {self._name} histogram"
        for values, cell in cells:
            with cell.lock:
                counts, total = list(accumulate(cell.counts)), cell.sum
            labels = _label_text(self._labels, values)
            before = f"{labels}," if labels else ""
            for bound, count in zip(self._shown_bounds, counts, strict=True):
                yield f'{self._name}_bucket{{{before}le="{bound}"}} {count}'
            yield f"{self._name}_sum{{{labels}}} {total!r}"
            yield f"{self._name}_count{{{labels}}} {counts[-1]}"


def page(series: Iterable[Series]) -> str:
    """All the series, one after the other."""
    return "".join(f"{line}\n" for each in series for line in each.lines())


def _prometheus_name(name: str) -> str:
    return name.replace("/", ":")


def _label_text(names: tuple[str, ...], values: Values) -> str:
    escaped = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values)
    return ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True))
