"""What a comparison is required to show: `p95_ratio<=1.05`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

from evidence.document import Comparison, Measured

BETWEEN: Final = ("ratio", "p50_ratio", "p95_ratio", "p99_ratio", "agreement")
OF_A_TARGET: Final = ("error_rate", "p50_ms", "p95_ms", "p99_ms")
"""Followed by a dot and a target's name."""
_HOLDS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


class State(StrEnum):
    HOLDS = "holds"
    BROKEN = "is broken"
    UNKNOWN = "is not known yet"


@dataclass(frozen=True)
class Judged:
    requirement: Requirement
    state: State
    why: str

    def __str__(self) -> str:
        return f"{self.requirement} {self.state}: {self.why}"


@dataclass(frozen=True)
class Requirement:
    figure: str
    comparator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Raises ValueError."""
        match = re.fullmatch(r"\s*(\w+(?:\.[\w@ ]*\w)?)\s*(<=|>=|<|>)\s*([0-9.eE+-]+)\s*", text)
        name, _, target = match[1].partition(".") if match else ("", "", "")
        if match is None or name not in (OF_A_TARGET if target else BETWEEN):
            figures = ", ".join([*BETWEEN, *(f"{each}.TARGET" for each in OF_A_TARGET)])
            raise ValueError(
                f"{text!r} is no requirement. Write a figure, <=, <, >= or >, and a number: p95_ratio<=1.05. "
                f"The figures: {figures}."
            )
        try:
            return cls(match[1], match[2], float(match[3]))
        except ValueError:
            raise ValueError(f"{text!r}: {match[3]!r} is no number.") from None

    def __str__(self) -> str:
        return f"{self.figure}{self.comparator}{self.limit:g}"

    def judge(self, comparison: Comparison) -> Judged:
        """By the whole interval: it holds, or is broken, wherever in it the truth lies. Raises ValueError for a target
        that is not compared."""
        name, _, target = self.figure.partition(".")
        if target and target not in comparison.runtimes:
            raise ValueError(f"{self}: {target!r} is not compared here. There is {' and '.join(comparison.runtimes)}.")
        if name.endswith("ratio") and comparison.objections:
            return Judged(self, State.UNKNOWN, f"do not compare: {', '.join(comparison.objections)}")
        found = _figure(comparison, name, target)
        if found is None or found.estimate is None:
            return Judged(self, State.UNKNOWN, "nothing was measured")
        if found.needed is not None:
            few = f"too few effective samples: about {found.needed:,} are needed in all, there are {found.n:,}"
            return Judged(self, State.UNKNOWN, few)
        low = -inf if found.low is None else found.low
        high = inf if found.high is None else found.high
        ends = {_HOLDS[self.comparator](end, self.limit) for end in (low, high)}
        state = State.UNKNOWN if len(ends) == 2 else State.HOLDS if True in ends else State.BROKEN
        return Judged(
            self, state, f"{found.estimate:.4g}, 95 % interval {_end(found.low)} … {_end(found.high)} ({found.looks})"
        )


def _figure(comparison: Comparison, name: str, target: str) -> Measured | None:
    """By bounds for any number of looks where there are any: a requirement is asked for again and again."""
    if target:
        of = comparison.runtimes[target]
        return of.error_rate_any_looks if name == "error_rate" else getattr(of.latency_ms["total"], name[:3])
    if name == "agreement":
        return comparison.agreement.share_any_looks
    if name == "ratio":
        return None if comparison.measure is None else getattr(comparison, comparison.measure).ratio_any_looks
    found: Measured = getattr(
        comparison.paired.quantile_ratios_any_looks or comparison.paired.quantile_ratios, name[:3]
    )
    return found


def _end(value: float | None) -> str:
    return "open" if value is None else f"{value:.4g}"
