"""The short form of the soak: a gateway over the fakes, hundreds of good and bad requests, and nothing is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loadtests.soak import verdict
from loadtests.soak.client import Client
from loadtests.soak.growth import growth
from loadtests.soak.load import Load
from loadtests.soak.mix import mix
from loadtests.soak.samples import Sample, Sampler, left_behind, write
from tandem.stack import GIVEN_BACK
from tests.support.gateway import Gateway, running_gateway
from tests.support.packages import detector_spec, digits_spec, write_packages
from tests.support.stack import HOST

USERS = 4
WARM_UP, REQUESTS = 300, 700
MOST_GROWTH = 30e6
"""Bytes. What is kept of a request is seen from 43 kB each on; the long form measures far less."""


async def soak(gateway: Gateway, load: Load, port: int) -> tuple[list[Sample], Sample, Sample]:
    """Samples under load, and one at rest before it and after it."""
    client = Client(HOST, port)
    sampler = Sampler([gateway.process.pid], {}, client)

    await load.prime(USERS)
    await load.run(USERS, rate=1e6, requests=WARM_UP)
    before = await sampler.at_rest(load.requests)
    running = asyncio.create_task(load.run(USERS, rate=1e6, requests=REQUESTS))
    while not running.done():
        await sampler.take(load.requests)
        await asyncio.wait([running], timeout=0.2)
    await running
    after = await sampler.at_rest(load.requests, before, patience_s=20)
    await client.close()
    return sampler.samples, before, after


def test_nothing_is_left_of_good_and_bad_requests_and_of_clients_that_hang_up(tmp_path: Path) -> None:
    write_packages(tmp_path / "store", digits_spec(1), digits_spec(2), detector_spec())
    with running_gateway(tmp_path, "--latency-ms=2", **GIVEN_BACK) as gateway:
        kinds = [kind for kind in mix((tmp_path / "admin.key").read_text().strip()) if kind.settles]
        port = gateway.client.base_url.port
        assert port is not None
        load = Load(kinds, HOST, port, seed=7)
        samples, before, after = asyncio.run(soak(gateway, load, port))
    assert not load.wrong, load.examples
    assert {kind for kind, _ in load.answers} == {kind.name for kind in kinds}
    assert left_behind(after, before) == {}
    assert after.uss - before.uss < MOST_GROWTH
    assert verdict.of_log([gateway.output]).why == "no fault"
    write(samples, tmp_path / "samples.csv")
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == len(samples) + 1


def sample(seconds: float, **values: int) -> Sample:
    known = {"requests": 0, "rss": 0, "uss": 0, "fds": 10, "threads": 4, "tasks": 3, "children": 0, **values}
    return Sample(seconds=seconds, others={}, **known)


@pytest.mark.parametrize(
    ("leak_per_s", "passes"),
    [
        pytest.param(0, True, id="it stays"),
        pytest.param(-2000, True, id="it falls"),
        pytest.param(100, True, id="less than can be told"),
        pytest.param(5000, False, id="it grows by 18 MB an hour"),
    ],
)
def test_memory_that_grows_under_its_peaks_is_seen_and_the_peaks_are_no_growth(leak_per_s: int, passes: bool) -> None:
    peaks = [0, 0, 40_000_000, 5_000_000, 1_000]
    samples = [sample(5.0 * n, uss=120_000_000 + peaks[n % 5] + 5 * n * leak_per_s) for n in range(240)]
    assert verdict.of_memory(samples).passed is passes


def test_growth_is_the_slope_in_an_hour() -> None:
    found = growth([60.0 * n for n in range(60)], [1e6 + 1000.0 * n for n in range(60)])
    assert found.per_h == pytest.approx(60_000)
    assert found.grows
    with pytest.raises(ValueError, match="at least 12"):
        growth([1.0], [1.0])


@pytest.mark.parametrize("what", ["fds", "tasks", "children"])
def test_whatever_is_left_behind_is_named(what: str) -> None:
    found = verdict.of_rest(sample(0), sample(9, **{what: getattr(sample(0), what) + 2}))
    assert not found.passed
    assert found.why == f"2 {what} more than before"
    assert verdict.of_rest(sample(0), sample(9)).passed


def test_more_threads_than_in_the_warm_up_are_too_many() -> None:
    assert verdict.of_threads([sample(0), sample(1, threads=9)], sample(9, threads=9)).passed
    assert not verdict.of_threads([sample(0), sample(1, threads=9)], sample(9, threads=10)).passed


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        pytest.param('{"event": "request", "level": "info", "status": 200}', True, id="an answer"),
        pytest.param('{"event": "request", "level": "error", "status": 504}', True, id="a deadline that was meant"),
        pytest.param('{"event": "request", "level": "error", "status": 500}', False, id="500"),
        pytest.param('{"event": "internal_error", "level": "error"}', False, id="a fault of ours"),
        pytest.param('{"event": "Task exception was never retrieved", "level": "error"}', False, id="a task's"),
        pytest.param("Traceback (most recent call last):", False, id="a traceback"),
        pytest.param("I1125 09:30:27.099257   26712 fork_posix.cc:71] Other threads are", True, id="gRPC's own"),
        pytest.param("E1125 09:30:27.099257   26712 chttp2.cc:1] wrong", False, id="gRPC's error"),
    ],
)
def test_the_log_has_a_fault_or_none(line: str, passes: bool, tmp_path: Path) -> None:
    (tmp_path / "gateway.log").write_text(f"{line}\n")
    assert verdict.of_log([tmp_path / "gateway.log", tmp_path / "not-there.log"]).passed is passes
