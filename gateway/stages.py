"""The stages of a request, timed so that they add up to its total."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal

Stage = Literal["receive", "decode", "preprocess", "queue", "rpc", "postprocess", "serialize"]
STAGES: tuple[Stage, ...] = ("receive", "decode", "preprocess", "queue", "rpc", "postprocess", "serialize")
"""In the order in which a request goes through them."""
BEFORE_ROUTING: frozenset[Stage] = frozenset({"receive", "decode", "preprocess"})
"""Those that are over before a runtime is chosen: they belong to none."""


class StageClock:
    """Every moment since `start_s` belongs to exactly one stage: each lap takes what has passed since the last one."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.start_s = self._last_s = now()
        self.seconds: dict[Stage, float] = {}

    def lap(self, stage: Stage, *, of_it: tuple[Stage, float] | None = None) -> None:
        """Give the time since the last lap to `stage`; of that, `of_it` names seconds that belong to another stage."""
        now_s = self._now()
        elapsed_s = now_s - self._last_s
        self._last_s = now_s
        if of_it is not None:
            other, seconds = of_it
            self._add(other, seconds)
            elapsed_s -= seconds
        self._add(stage, elapsed_s)

    def fork(self) -> StageClock:
        """A clock that has run as far as this one, for one of several branches that go on side by side."""
        branch = StageClock(self._now)
        branch.start_s, branch._last_s = self.start_s, self._last_s
        branch.seconds = dict(self.seconds)
        return branch

    def join(self, branch: StageClock) -> None:
        """Go on from where `branch` has come to, a fork of this clock. What it has left out was a wait: `queue`."""
        left_out_s = branch.start_s - self.start_s
        self._last_s, self.seconds = branch._last_s, dict(branch.seconds)
        if left_out_s:
            self._add("queue", left_out_s)

    def skip(self) -> None:
        """Leave out what has passed since the last lap: it belongs to no stage, nor to the total."""
        now_s = self._now()
        self.start_s += now_s - self._last_s
        self._last_s = now_s

    def now_s(self) -> float:
        return self._now()

    def elapsed_s(self) -> float:
        return self._now() - self.start_s

    @property
    def last_s(self) -> float:
        """When the last lap ended, and the next one began."""
        return self._last_s

    @property
    def running(self) -> Stage | None:
        """The one after the last that a lap was given to."""
        over = max((STAGES.index(stage) for stage in self.seconds), default=-1)
        return STAGES[over + 1] if over + 1 < len(STAGES) else None

    def seconds_so_far(self) -> dict[Stage, float]:
        """Of each stage that is over, and of the one that is running."""
        running = {} if self.running is None else {self.running: self._now() - self._last_s}
        return self.seconds | running

    def laps(self) -> Iterator[tuple[Stage, float, float]]:
        """Each stage so far, with its start and end. Decode and preprocess take turns; here one follows the other."""
        end_s = self.start_s
        for stage in STAGES:
            if stage in self.seconds:
                start_s, end_s = end_s, end_s + self.seconds[stage]
                yield stage, start_s, end_s

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds of each stage so far, in order, and their `total`."""
        timing = {stage: round(self.seconds[stage] * 1000, 3) for stage in STAGES if stage in self.seconds}
        return timing | {"total": round(sum(self.seconds.values()) * 1000, 3)}

    def _add(self, stage: Stage, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
