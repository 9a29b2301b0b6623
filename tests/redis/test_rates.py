"""Several gateways that count the requests of a key together, on a real Redis."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from gateway.metrics import Metrics
from gateway.rates import Rates
from gateway.settings import RateLimitSettings
from tests.conftest import StartGateway
from tests.http.test_errors import GOOD, PNG, assert_problem
from tests.http.test_keys import PREDICT, add_key
from tests.support.clock import Clock
from tests.support.redis import Server


def opened(server: Server, clock: Clock | None = None) -> tuple[Rates, Metrics]:
    metrics = Metrics(CollectorRegistry())
    return Rates(server.url, share=lambda total: total, metrics=metrics, clock=clock or Clock()), metrics


async def granted(rates: Rates, count: int, rate: str = "4/day") -> int:
    return sum([(await rates.take("shop", rate)).granted for _ in range(count)])


@pytest.mark.anyio
async def test_two_processes_grant_together_what_the_rate_says(server: Server) -> None:
    (one, metrics), (two, _) = opened(server), opened(server)
    assert await granted(one, 3) == 3
    told = [await two.take("shop", "4/day") for _ in range(2)]
    assert [(each.granted, each.left) for each in told] == [(True, 0), (False, 0)]
    assert 0 < told[-1].more_s <= 86400
    assert await granted(one, 1) == 0
    assert metrics.registry.get_sample_value("tandem_rates_not_shared_total") == 0
    await one.close()
    await two.close()


@pytest.mark.anyio
async def test_a_redis_that_goes_and_comes_back_fails_no_request(server: Server) -> None:
    clock = Clock()
    rates, metrics = opened(server, clock)
    assert await granted(rates, 4) == 4
    server.stop()
    with structlog.testing.capture_logs() as logs:
        assert await granted(rates, 6) == 4  # by itself, from nothing
        server.start()
        clock.now_s += 2
        assert await granted(rates, 6) == 4  # the server kept nothing
    assert [each["event"] for each in logs] == ["redis_away"]
    assert metrics.registry.get_sample_value("tandem_rates_not_shared_total") == 6
    await rates.close()


@pytest.mark.anyio
async def test_a_redis_that_hangs_delays_one_request_and_not_the_next(server: Server) -> None:
    rates, metrics = opened(server)
    assert await granted(rates, 1) == 1
    os.kill(server.pid, signal.SIGSTOP)
    try:
        begin_s = time.monotonic()
        assert await granted(rates, 50, "100/day") == 50
        assert time.monotonic() - begin_s < 5  # 50 of them would wait 10 s
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert metrics.registry.get_sample_value("tandem_rates_not_shared_total") == 50
    await rates.close()


def test_two_gateways_refuse_a_key_together(start_gateway: StartGateway, tmp_path: Path, server: Server) -> None:
    headers = PNG | add_key(tmp_path, "predict", rate="3/day")
    one, two = (start_gateway(rate_limit=RateLimitSettings(storage_url=server.url)) for _ in range(2))
    answers = [gateway.post(PREDICT, content=GOOD, headers=headers) for gateway in (one, two, one)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for gateway in (one, two):
        assert_problem(gateway.post(PREDICT, content=GOOD, headers=headers), 429, "rate_limited")
