"""The request log in a PostgreSQL that several gateways share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg.rows import dict_row
from structlog.testing import capture_logs

from gateway.metrics import Metrics
from gateway.recording import RequestLog
from gateway.settings import RequestLogSettings, Settings
from gateway.worker_times import WorkerTimes
from tests.support.gateway import running_gateway
from tests.support.pictures import encode, plain
from tests.support.postgres import Server
from tests.support.rows import OLD_ROW, OLD_TABLE, row
from tests.support.waiting import wait_until

PICTURE = {"image": encode(plain(7))}


def read(url: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM inferences ORDER BY id").fetchall()


Opened = Callable[..., RequestLog]


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    """Opens the log as another gateway would, with settings of the test's own."""
    with ExitStack() as stack:

        def open_again(**settings: Any) -> RequestLog:
            made = RequestLogSettings(**settings)
            metrics = Metrics(CollectorRegistry())
            log = RequestLog(made, Settings(database_url=url).database, metrics=metrics)
            return stack.enter_context(closing(log))

        yield open_again


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody holds the table."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE inferences IN ACCESS EXCLUSIVE MODE")
        yield


def test_rows_of_two_gateways_are_in_one_log(url: str, opened: Opened) -> None:
    logs = [opened() for _ in range(2)]
    now = time.time()
    for number in range(600):
        logs[number % 2].record(row(number, time=now))
    for log in logs:
        log.start()
    for log in logs:
        log.close()
    rows = read(url)
    assert sorted(each["request_id"] for each in rows) == sorted(f"request-{number}" for number in range(600))
    first = rows[0]
    assert (first["time"], first["cold"], first["pair"], first["policy"]) == (now, False, None, "fixed")
    assert first["rpc_s"] == first["total_s"] == pytest.approx(0.004)


def test_a_log_of_an_older_version_is_gone_on_with_by_gateways_that_start_at_once(url: str, opened: Opened) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(OLD_TABLE.format(id="BIGSERIAL").encode())
        connection.execute(OLD_ROW.format(no="false").encode())
    logs = [opened(max_age_h=1e9) for _ in range(3)]
    for number, log in enumerate(logs):
        log.record(replace(row(number), worker=WorkerTimes(0.001, 0.25, 8)))
    with ThreadPoolExecutor(len(logs)) as threads, capture_logs() as said:
        for written in [threads.submit(log.write) for log in logs]:
            written.result()
    old, *new = read(url)
    assert said == []
    assert (old["request_id"], old["rpc_s"], old["batch"]) == ("old", 0.25, 8)
    assert (old["worker_queue_s"], old["worker_inference_s"]) == (None, None)
    assert len(new) == 3
    for each in new:
        assert (each["worker_queue_s"], each["worker_inference_s"], each["batch"]) == (pytest.approx(0.001), 0.25, 8)


def test_the_bounds_are_kept_by_all_gateways_together(url: str, opened: Opened) -> None:
    logs = [opened(max_rows=500, max_age_h=1) for _ in range(3)]
    now = time.time()
    for number in range(5000):
        logs[number % 3].record(row(number, time=now))
    with ThreadPoolExecutor(3) as threads, capture_logs() as said:
        for _ in range(4):
            for written in [threads.submit(log.write) for log in logs]:
                written.result()
    assert len(read(url)) == 500
    assert said == []


def test_a_table_that_somebody_holds_delays_rows_and_loses_none(url: str, opened: Opened) -> None:
    log = opened()
    log.write()
    with capture_logs() as said, locked(url):
        log.record(row(0, time=time.time()))
        log.write()
    assert [line["event"] for line in said] == ["request_log_away"]
    log.write()
    assert [each["request_id"] for each in read(url)] == ["request-0"]


def test_while_the_server_is_away_requests_are_answered_and_what_has_no_room_is_counted(
    url: str, server: Server, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, TANDEM_DATABASE_URL=url, TANDEM_REQUEST_LOG__BUFFER_ROWS="20") as gateway:

        def ask(count: int) -> None:
            for _ in range(count):
                answer = gateway.client.post("/v1/models/digits/predict", files=PICTURE)
                assert answer.status_code == 200, answer.text

        def dropped() -> float:
            return gateway.count("tandem_log_rows_dropped_total")

        def wait_for_rows(asked: int) -> None:
            wait_until(
                lambda: len(read(url)) + dropped() == asked, gateway.output.read_text, patience_s=60, pause_s=0.05
            )

        ask(5)
        wait_for_rows(5)
        server.stop()
        try:
            ask(1)
            wait_until(lambda: "request_log_away" in gateway.output.read_text(), gateway.output.read_text)
            before = dropped()
            ask(60)
            assert dropped() - before >= 40
        finally:
            server.start()
        wait_for_rows(66)
        ask(5)
        wait_for_rows(71)
        assert not (tmp_path / "tandem.db").exists()
