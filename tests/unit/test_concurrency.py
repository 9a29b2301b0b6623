"""The limit of pictures at a runtime, which follows what the runtime's workers make of more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from gateway.concurrency import HEADROOM, PROBE_S, ConcurrencyLimit
from gateway.metrics import Metrics
from tests.support.clock import Clock

LEAST, MOST = 32, 64


class Runtime:
    """One that is always full, and holds each of so many pictures for `held_s(so many)`."""

    def __init__(self, held_s: Callable[[int], float], *, least: int = LEAST, most: int = MOST) -> None:
        self.held_s = held_s
        self.workers = 1
        self.clock = Clock()
        self.metrics = Metrics(CollectorRegistry())
        self.limit = ConcurrencyLimit(
            lambda: least * self.workers,
            lambda: most * self.workers,
            self.metrics.admission_limit.labels("torch"),
            clock=self.clock,
        )

    def run(self, seconds: float) -> list[int]:
        """The limits on the way, in order of time."""
        end_s, limits = self.clock.now_s + seconds, []
        while self.clock.now_s < end_s:
            limits.append(limit := self.limit.now())
            since_s = self.clock.now_s
            self.clock.now_s += self.held_s(limit)
            for _ in range(limit):
                self.limit.learn(1, since_s)
        return limits


def saturated(pace: float) -> Callable[[int], float]:
    return lambda pictures: pictures / pace


def test_where_more_at_once_only_wait_there_are_as_many_as_fill_the_batches_and_some_headroom() -> None:
    limits = Runtime(saturated(180)).run(60)
    assert limits[0] == MOST  # until it is known
    assert max(limits[len(limits) // 2 :]) <= HEADROOM * LEAST + 1


def test_where_more_at_once_are_answered_as_soon_there_are_as_many_as_may_be() -> None:
    runtime = Runtime(lambda _: 0.3)
    assert runtime.run(60)[-1] == MOST


def test_it_ends_between_where_more_than_so_many_wait() -> None:
    runtime = Runtime(lambda pictures: 0.3 * max(1.0, pictures / 80), most=1000)
    assert runtime.run(120)[-1] == pytest.approx(80 * HEADROOM, rel=0.1)


def test_a_runtime_that_becomes_slower_as_more_come_gets_fewer_and_those_again_once_it_is_well() -> None:
    runtime = Runtime(lambda _: 0.3)
    runtime.run(60)
    runtime.held_s = saturated(20)
    assert runtime.run(60)[-1] <= HEADROOM * LEAST + 1
    runtime.held_s = lambda _: 0.3
    assert runtime.run(60)[-1] == MOST


def test_a_slower_model_is_no_congestion_once_the_base_is_measured_anew() -> None:
    runtime = Runtime(lambda _: 0.05)
    runtime.run(60)
    runtime.held_s = lambda _: 0.5
    after = runtime.run(60)
    assert min(after) == LEAST
    assert after[-1] == MOST


def test_the_base_is_measured_every_so_often_with_the_least_at_once_for_one_window() -> None:
    limits = Runtime(lambda _: 0.3).run(10 * PROBE_S)
    probes = [limit for limit in limits if limit < MOST]
    assert set(probes) == {LEAST}
    assert 0 < len(probes) < 0.1 * len(limits)


def test_small_limits_grow_as_well() -> None:
    runtime = Runtime(saturated(20), least=1, most=8)
    assert runtime.run(60)[-1] <= 2
    runtime.held_s = lambda _: 0.3
    assert runtime.run(60)[-1] == 8


def test_with_another_worker_there_are_more_and_with_one_less_fewer_at_once() -> None:
    runtime = Runtime(saturated(180))
    runtime.run(30)
    runtime.workers = 2
    assert runtime.limit.now() == 2 * LEAST
    runtime.workers = 1
    assert runtime.limit.now() <= HEADROOM * LEAST + 1


def test_a_fixed_limit_stays() -> None:
    assert set(Runtime(saturated(180), least=64, most=64).run(60)) == {64}


def test_those_who_came_before_the_limit_changed_say_nothing_of_it() -> None:
    runtime = Runtime(lambda _: 0.3)
    runtime.run(60)
    runtime.clock.now_s += 2 * PROBE_S
    for _ in range(1000):
        runtime.limit.learn(1, 0.0)
    assert runtime.limit.now() == MOST


def test_the_metric_shows_it() -> None:
    runtime = Runtime(saturated(180))
    assert runtime.metrics.registry.get_sample_value("tandem_admission_limit", {"runtime": "torch"}) == MOST
    shown = runtime.run(60)[-1]
    assert runtime.metrics.registry.get_sample_value("tandem_admission_limit", {"runtime": "torch"}) == shown < MOST
