"""Load that changes while a test runs: how many users there are when."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import NamedTuple

from locust import LoadTestShape


class Stage(NamedTuple):
    until_s: float
    """Its end, counted from the start of the test."""
    users: int
    spawn_rate: float
    """Users that come or go in a second until there are that many."""


class Shape(LoadTestShape):
    """Stages one after the other, made of the options at the start of each test.

    `-t` ends it early, or has its last stage last longer.
    """

    abstract = True
    # locust shows its fields for users, spawn rate and time beside a shape only then.
    use_common_options = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stages: list[Stage] = []

    def reset_time(self) -> None:
        """Called by locust at the start of a test. Raises ValueError as `check` does; then there are no stages."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._stages = []
        if self.runner and self.runner.environment.parsed_options:
            self._stages = self.check(self.runner.environment.parsed_options)

    def tick(self) -> tuple[int, float] | None:
        elapsed_s = self.get_run_time()  # type: ignore[no-untyped-call]
        return next(((stage.users, stage.spawn_rate) for stage in self._stages if elapsed_s < stage.until_s), None)

    def check(self, options: Namespace) -> list[Stage]:
        """The stages that these options make. Raises ValueError, which says what to change, if they make none."""
        if not options.num_users or options.num_users < 1:
            raise ValueError("a shape needs the greatest number of users: -u, at least 1")
        stages = self.stages(options)
        if not options.run_time:
            return stages
        last = min(sum(stage.until_s < options.run_time for stage in stages), len(stages) - 1)
        return [*stages[:last], stages[last]._replace(until_s=options.run_time)]

    def stages(self, options: Namespace) -> list[Stage]:
        raise NotImplementedError


class SteadyShape(Shape):
    """The same number of users all the time."""

    def stages(self, options: Namespace) -> list[Stage]:
        return [Stage(math.inf, options.num_users, _spawn_rate(options))]


class StepShape(Shape):
    """More users with every step: at which number of them the answers slow down."""

    def stages(self, options: Namespace) -> list[Stage]:
        if options.step_users < 1 or options.step_time < 1:
            raise ValueError("--step-users and --step-time must be at least 1")
        size, time_s, rate = min(options.step_users, options.num_users), options.step_time, _spawn_rate(options)
        if size / rate > time_s:
            raise ValueError(
                f"{size} more users take {size / rate:g} s at -r {rate:g}, a step {time_s} s: raise -r or --step-time"
            )
        steps = math.ceil(options.num_users / size)
        return [Stage(step * time_s, min(step * size, options.num_users), rate) for step in range(1, steps + 1)]


class SpikeShape(Shape):
    """Few users, suddenly many, few again: what that does to the answers, and how soon it is over.

    The many come and go within a second, whatever `-r` says.
    """

    def stages(self, options: Namespace) -> list[Stage]:
        base, peak, around_s, time_s = options.base_users, options.num_users, options.spike_after, options.spike_time
        if base < 1 or around_s < 1 or time_s < 1:
            raise ValueError("--base-users, --spike-after and --spike-time must be at least 1")
        if base >= peak:
            raise ValueError(f"--base-users {base} is not below the spike's -u {peak}")
        return [
            Stage(around_s, base, max(base, _spawn_rate(options))),
            Stage(around_s + time_s, peak, peak),
            Stage(2 * around_s + time_s, base, peak),
        ]


def _spawn_rate(options: Namespace) -> float:
    return float(options.spawn_rate or 1)


SHAPES: dict[str, type[Shape]] = {"steady": SteadyShape, "step": StepShape, "spike": SpikeShape}
"""By their names on the command line."""
