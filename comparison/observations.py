"""What was seen of one target, and of two about the same tensor: the inputs of the statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Outcomes = NDArray[np.int8]


class Outcome(IntEnum):
    """How one inference ended. All but OK are censored: its latency is not known."""

    OK = 0
    TIMED_OUT = 1
    """Slower than all that answered."""
    FAILED = 2
    DROPPED = 3
    """Never sent: a shadow that was behind."""
    OVERTAKEN = 4
    """Given up because a copy of it, sent to another target as it was late, had answered. Slower than most that
    answered, and no error."""


@dataclass(frozen=True)
class Observations:
    """One target's inferences in time order. Raises ValueError for what cannot be an observation."""

    seconds: Floats
    """Latency; only read where the outcome is OK, and finite and above 0 there."""
    outcome: Outcomes
    """Codes of Outcome."""

    def __post_init__(self) -> None:
        if self.seconds.ndim != 1 or self.seconds.shape != self.outcome.shape:
            raise ValueError(
                f"latencies {self.seconds.shape} and outcomes {self.outcome.shape}: give one of each an inference"
            )
        if not np.isin(self.outcome, list(Outcome)).all():
            raise ValueError("an outcome is not one of Outcome's codes: map it to one")
        answered = self.seconds[self.ok]
        if not (np.isfinite(answered) & (answered > 0)).all():
            raise ValueError(
                "a latency is NaN, infinite or not above 0: give such an inference an outcome other than OK"
            )

    @classmethod
    def answered(cls, seconds: Floats) -> Observations:
        """Inferences that all succeeded."""
        return cls(seconds, np.full(len(seconds), Outcome.OK, dtype=np.int8))

    @property
    def ok(self) -> Bools:
        return np.equal(self.outcome, Outcome.OK)

    @property
    def sent(self) -> Bools:
        return np.not_equal(self.outcome, Outcome.DROPPED)

    @property
    def known(self) -> Bools:
        """Whether each has a latency, or one that is slower than all."""
        return self.ok | self._late

    @property
    def errors(self) -> Bools:
        """Of those sent and not overtaken, in time order: whether each failed or timed out."""
        judged: Bools = self.sent & np.not_equal(self.outcome, Outcome.OVERTAKEN)
        return ~self.ok[judged]

    def ordered(self) -> tuple[Floats, int]:
        """Latencies in time order, infinite for one that is slower than all; and how many have an unknown one.

        Of one that was overtaken a quantile is right that lies below what a request is late by.
        """
        seconds = np.where(self._late, np.inf, self.seconds)
        return seconds[self.known], int((~self.known & self.sent).sum())

    @property
    def _late(self) -> Bools:
        late: Bools = np.isin(self.outcome, (Outcome.TIMED_OUT, Outcome.OVERTAKEN))
        return late


@dataclass(frozen=True)
class Pairs:
    """Two targets about the same tensors, at about the same moments, in time order.

    Raises ValueError for unequal lengths.
    """

    a: Observations
    b: Observations

    def __post_init__(self) -> None:
        if len(self.a.seconds) != len(self.b.seconds):
            raise ValueError(
                f"{len(self.a.seconds)} inferences of one target and {len(self.b.seconds)} of the other: "
                "give both of every pair, with its outcome where it has no latency"
            )

    def __len__(self) -> int:
        return len(self.a.seconds)

    @property
    def complete(self) -> Bools:
        return self.a.ok & self.b.ok

    @property
    def censored_share(self) -> float:
        return 1 - float(self.complete.mean()) if len(self) else 0.0

    def log_ratios(self) -> tuple[Floats, int]:
        """log(a/b) in time order, infinite where one alone timed out; and how many pairs have an unknown one."""
        return self._compared(lambda a, b: np.log(a) - np.log(b))

    def differences(self) -> tuple[Floats, int]:
        """a - b in seconds, in the same way."""
        return self._compared(lambda a, b: a - b)

    def _compared(self, compare: Callable[[Floats, Floats], Floats]) -> tuple[Floats, int]:
        late_a, late_b = (side.outcome == Outcome.TIMED_OUT for side in (self.a, self.b))
        compared = np.full(len(self), np.nan)
        complete = self.complete
        compared[complete] = compare(self.a.seconds[complete], self.b.seconds[complete])
        compared[late_a & self.b.ok] = np.inf
        compared[late_b & self.a.ok] = -np.inf
        known = ~np.isnan(compared)
        return compared[known], int((~known).sum())
