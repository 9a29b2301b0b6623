"""How many requests a key may still make."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from gateway.app import create_app
from gateway.metrics import Metrics
from gateway.rates import Rates
from gateway.settings import InvalidSettings, RateLimitSettings, Settings
from tests.support.clock import Clock
from tests.support.stack import HOST, free_ports

pytestmark = pytest.mark.anyio
NOON = 1_772_366_400.0
"""The beginning of a window of every length."""


class Time:
    """In the place of the module `time`, where limits and the gateway look."""

    def __init__(self) -> None:
        self.now = NOON

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    for module in ("limits.aio.storage.memory", "limits.aio.strategies", "gateway.rates"):
        monkeypatch.setattr(f"{module}.time", clock)
    return clock


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def opened(metrics: Metrics, *, processes: int = 1, url: str = "", monotonic: Clock | None = None) -> Rates:
    settings = Settings(http={"processes": processes})
    return Rates(url, share=settings.share, metrics=metrics, clock=monotonic or Clock())


async def granted(rates: Rates, count: int, name: str = "shop", rate: str = "4/minute") -> int:
    return sum([(await rates.take(name, rate)).granted for _ in range(count)])


async def test_so_many_are_granted_and_what_is_left_is_told(clock: Time, metrics: Metrics) -> None:
    rates = opened(metrics)
    clock.now += 15
    told = [await rates.take("shop", "2/minute") for _ in range(3)]
    assert [(each.granted, each.most, each.window_s, each.left) for each in told] == [
        (True, 2, 60, 1),
        (True, 2, 60, 0),
        (False, 2, 60, 0),
    ]
    assert told[-1].more_s == 45


async def test_names_do_not_share_and_the_keys_of_one_do(clock: Time, metrics: Metrics) -> None:
    rates = opened(metrics)
    assert await granted(rates, 5) == 4
    assert await granted(rates, 5, name="other") == 4
    assert await granted(rates, 1) == 0


async def test_around_the_end_of_a_minute_no_more_are_granted_than_in_one(clock: Time, metrics: Metrics) -> None:
    rates = opened(metrics)
    clock.now += 59
    assert await granted(rates, 4) == 4
    clock.now += 1.5
    assert await granted(rates, 4) <= 1
    clock.now += 120
    assert await granted(rates, 9) == 4


async def test_after_the_time_that_was_told_one_more_is_granted(clock: Time, metrics: Metrics) -> None:
    rates = opened(metrics)
    clock.now += 7
    assert await granted(rates, 4) == 4
    for _ in range(6):
        refused = await rates.take("shop", "4/minute")
        assert not refused.granted
        clock.now += refused.more_s + 0.001
        assert (await rates.take("shop", "4/minute")).granted


async def test_a_request_that_is_refused_is_not_counted(clock: Time, metrics: Metrics) -> None:
    rates = opened(metrics)
    assert await granted(rates, 100) == 4
    clock.now += 120
    assert await granted(rates, 100) == 4


async def test_each_of_several_processes_has_its_share(clock: Time, metrics: Metrics) -> None:
    assert await granted(opened(metrics, processes=3), 100, rate="10/minute") == 4
    assert await granted(opened(metrics, processes=64), 100, rate="10/minute") == 1


async def test_without_redis_each_counts_alone_says_so_once_and_asks_it_no_more_for_a_moment(
    clock: Time, metrics: Metrics
) -> None:
    (port,) = free_ports(1)
    monotonic = Clock()
    rates = opened(metrics, url=f"redis://{HOST}:{port}", monotonic=monotonic)
    with structlog.testing.capture_logs() as logs:
        assert await granted(rates, 6) == 4
        monotonic.now_s += 1.5
        assert await granted(rates, 1) == 0
    assert [each["event"] for each in logs] == ["redis_away"]
    assert metrics.registry.get_sample_value("tandem_rates_not_shared_total") == 7
    await rates.close()


def test_redis_without_its_client_ends_the_start_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'tandem-serving\[redis\]'"):
        create_app(Settings(var=tmp_path, rate_limit=RateLimitSettings(storage_url="redis://localhost")))


def test_the_password_of_redis_is_not_shown() -> None:
    settings = Settings(rate_limit=RateLimitSettings(storage_url="redis://:s3cret@cache:6379/1"))
    assert settings.model_dump()["rate_limit"]["storage_url"] == "redis://:***@cache:6379/1"
