"""What becomes of requests and of the request log when the gateway is killed, the disk is full or the file locked."""

from __future__ import annotations

import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.pictures import encode, plain
from tests.support.rows import read
from tests.support.waiting import wait_until

PREDICT = "/v1/models/digits/predict"
PICTURE = {"image": encode(plain(7))}
DROPPED = "tandem_log_rows_dropped_total"


def ask(gateway: Gateway, count: int) -> None:
    for _ in range(count):
        assert gateway.client.post(PREDICT, files=PICTURE).status_code == 200


def wait_for_rows(gateway: Gateway, var: Path, asked: float) -> None:
    """Until each request that was not counted as lost has its row."""
    wait_until(
        lambda: len(read(var / "tandem.db")) + gateway.count(DROPPED) == asked,
        lambda: (len(read(var / "tandem.db")), gateway.client.get("/metrics").text),
        patience_s=30,
        pause_s=0.05,
    )


def assert_sound(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_kill_9_under_load_loses_at_most_a_second_and_leaves_the_file_sound(tmp_path: Path) -> None:
    answered: dict[str, float] = {}
    with running_gateway(tmp_path, TANDEM_LOG__LEVEL="error") as gateway:

        def ask_until_it_dies() -> None:
            with httpx.Client(base_url=gateway.client.base_url) as client:
                while True:
                    try:
                        answer = client.post(PREDICT, files=PICTURE)
                    except httpx.TransportError:
                        return
                    answered[answer.json()["request_id"]] = time.monotonic()

        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(ask_until_it_dies) for _ in range(4)]
            wait_until(lambda: len(answered) > 500, lambda: len(answered), patience_s=120, pause_s=0.01)
            killed_s = time.monotonic()
            gateway.process.send_signal(signal.SIGKILL)
            for each in asking:
                each.result()
        assert gateway.process.wait(30) == -signal.SIGKILL
    assert_sound(tmp_path / "tandem.db")
    kept = {row["request_id"] for row in read(tmp_path / "tandem.db")}
    lost = [killed_s - at_s for request, at_s in answered.items() if request not in kept]
    assert len(kept) > 100
    assert max(lost, default=0) < 1


def test_a_gateway_that_is_told_to_stop_loses_nothing(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        ask(gateway, 20)
        gateway.process.terminate()
        gateway.process.wait(30)
    assert len(read(tmp_path / "tandem.db")) == 20


@contextmanager
def full_disk(gateway: Gateway, var: Path) -> Iterator[None]:
    """No file of the gateway's can grow beyond the size that the largest has now, whoever it runs as."""
    largest = max(path.stat().st_size for path in var.glob("tandem.db*"))
    soft, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (largest, hard))
    yield
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def locked(gateway: Gateway, var: Path) -> Iterator[None]:
    """Another process writes to the file, and does not come to an end."""
    with closing(sqlite3.connect(var / "tandem.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("broken", [full_disk, locked])
def test_while_nothing_can_be_written_requests_are_answered_and_what_has_no_room_is_counted(
    tmp_path: Path, broken: Callable[[Gateway, Path], AbstractContextManager[None]]
) -> None:
    with running_gateway(tmp_path, TANDEM_REQUEST_LOG__BUFFER_ROWS="20") as gateway:
        ask(gateway, 5)
        wait_for_rows(gateway, tmp_path, 5)
        with broken(gateway, tmp_path):
            ask(gateway, 1)
            wait_until(lambda: "request_log_away" in gateway.output.read_text(), gateway.output.read_text, pause_s=0.01)
            before = gateway.count(DROPPED)
            ask(gateway, 60)
            assert gateway.count(DROPPED) - before >= 40
            asked = gateway.count('tandem_requests_total{model="digits"')
        wait_for_rows(gateway, tmp_path, asked)
        lost = gateway.count(DROPPED)
        ask(gateway, 5)
        wait_for_rows(gateway, tmp_path, asked + 5)
        assert gateway.count(DROPPED) == lost
    assert_sound(tmp_path / "tandem.db")
