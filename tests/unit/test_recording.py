"""The request log on a real SQLite file: what is written, what is dropped, and what a broken database changes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Engine, event, func, insert, select
from structlog.testing import capture_logs

from gateway.database import make_tables, open_engine
from gateway.metrics import Metrics
from gateway.recording import RequestLog, withheld
from gateway.request_log import TABLE, Row
from gateway.settings import RequestLogSettings
from gateway.trimming import Bounds, trim
from tests.support.rows import read, row, wait_for


class Log(RequestLog):
    """One on `folder/tandem.db`, written when the test says so, whose metrics can be read."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.path = folder / "tandem.db"
        self.metrics = Metrics(CollectorRegistry())
        made = RequestLogSettings(**{"max_age_h": 1e9} | settings)
        super().__init__(made, f"sqlite:///{self.path}", metrics=self.metrics)

    def record_some(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            self.record(row(number))

    def dropped(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("tandem_log_rows_dropped_total", {"reason": reason})

    @property
    def written(self) -> float | None:
        return self.metrics.registry.get_sample_value("tandem_log_rows_total")

    @property
    def waiting(self) -> float | None:
        return self.metrics.registry.get_sample_value("tandem_log_buffer_rows")


Opened = Callable[..., Log]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens a log as a gateway would, with settings of the test's own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(closing(Log(tmp_path, **settings)))


@pytest.fixture
def log(opened: Opened) -> Log:
    return opened()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes to the file, and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def numbers(path: Path) -> list[int]:
    return [int(each["request_id"].removeprefix("request-")) for each in read(path)]


def test_what_is_recorded_is_in_the_database_in_order(log: Log) -> None:
    log.record_some(250)
    log.write()
    assert numbers(log.path) == list(range(250))
    assert (log.written, log.waiting) == (250, 0)
    first = read(log.path)[0]
    assert {name: value for name, value in first.items() if value is not None} == {
        "id": 1,
        "time": 1000.0,
        "request_id": "request-0",
        "side": 0,
        "called": 0,
        "model": "digits",
        "version": 1,
        "runtime": "torch",
        "role": "primary",
        "policy": "fixed",
        "cold": 0,
        "outcome": "ok",
        "images": 1,
        "rpc_s": 0.004,
        "total_s": 0.004,
    }
    assert first.keys() == set(TABLE.c.keys())


def test_a_thread_writes_by_itself_and_the_rest_is_written_at_the_end(log: Log) -> None:
    log.start()
    log.record_some(3)
    wait_for(log.path, lambda rows: len(rows) == 3)
    log.record_some(2, first=3)
    log.close()
    assert numbers(log.path) == [0, 1, 2, 3, 4]


def test_a_log_that_is_switched_off_writes_nothing_and_counts_nothing(opened: Opened) -> None:
    log = opened(enabled=False)
    log.start()
    log.record_some(3)
    log.close()
    assert not log.path.exists()
    assert (log.written, log.dropped("buffer_full"), log.dropped("stopped")) == (0, 0, 0)


def test_what_the_buffer_has_no_room_for_is_dropped_and_counted(opened: Opened) -> None:
    log = opened(buffer_rows=10)
    log.record_some(30)
    log.write()
    assert numbers(log.path) == list(range(10))
    assert log.dropped("buffer_full") == 20


def test_a_locked_database_loses_nothing_that_the_buffer_holds_and_is_said_once_each_time(opened: Opened) -> None:
    log = opened(buffer_rows=150)
    log.record_some(1)
    log.write()
    with capture_logs() as logs:
        with locked(log.path):
            log.record_some(120, first=1)
            log.write()
            log.record_some(80, first=121)
            log.write()
            assert log.waiting == 150
        log.write()
        assert [line["event"] for line in logs] == ["request_log_away"]
        assert numbers(log.path) == list(range(151))
        assert (log.written, log.dropped("buffer_full")) == (151, 50)
        with locked(log.path):
            log.record_some(1, first=151)
            log.write()
        assert [line["event"] for line in logs] == ["request_log_away"] * 2


def test_a_gateway_that_stops_while_the_database_is_locked_counts_what_it_could_not_write(log: Log) -> None:
    log.record_some(1)
    log.write()
    with capture_logs() as logs, locked(log.path):
        log.start()
        log.record_some(7, first=1)
        log.close()
    assert log.dropped("stopped") == 7
    assert logs[-1]["event"] == "request_log_incomplete"


def test_a_row_that_the_database_refuses_is_not_tried_again_and_stops_no_other(log: Log) -> None:
    log.record(row(0))
    log.record(Row(row(1).origin, None, 1, "torch", "primary", False, "ok", 1, {}))  # type: ignore[arg-type]
    log.write()
    log.record_some(2, first=2)
    log.write()
    assert numbers(log.path) == [2, 3]
    assert (log.written, log.dropped("not_written")) == (2, 2)


def test_a_row_that_cannot_even_be_sent_is_not_tried_again_either(log: Log) -> None:
    log.record(Row(row(0).origin, "digits", 2**70, "torch", "primary", False, "ok", 1, {}))
    with capture_logs() as logs:
        log.write()
    log.record_some(1, first=1)
    log.write()
    assert [line["event"] for line in logs] == ["request_log_failed"]
    assert (numbers(log.path), log.dropped("not_written")) == ([1], 1)


def test_rows_whose_commit_failed_are_not_written_again_since_they_may_be_there(log: Log) -> None:
    log.write()

    def fail(connection: Connection) -> None:
        raise sqlite3.OperationalError("the connection broke")

    event.listen(Engine, "commit", fail)
    try:
        log.record_some(3)
        log.write()
    finally:
        event.remove(Engine, "commit", fail)
    log.record_some(1, first=3)
    log.write()
    assert (numbers(log.path), log.dropped("not_written")) == ([3], 3)


def test_a_file_that_is_broken_or_gone_is_replaced_once_it_can_be(log: Log) -> None:
    log.path.write_bytes(b"no database at all" * 100)
    with capture_logs() as logs:
        log.record_some(3)
        log.write()
        log.path.unlink()
        log.write()
    assert [line["event"] for line in logs] == ["request_log_away"]
    assert numbers(log.path) == [0, 1, 2]


def test_two_gateways_write_one_log(opened: Opened) -> None:
    one, other = opened(), opened()
    for log in (one, other):
        log.start()
    one.record_some(500)
    other.record_some(500, first=500)
    for log in (one, other):
        log.close()
    assert sorted(numbers(one.path)) == list(range(1000))


def test_a_withheld_row_is_recorded_at_the_end_with_the_agreement_or_without(log: Log) -> None:
    with withheld(log) as held:
        held.record(row(0))
        held.compared([(True, 0.1), (False, 0.5), (True, 0.0)])
    with suppress(ZeroDivisionError), withheld(log) as held:
        held.record(row(1))
        raise ZeroDivisionError
    with withheld(log):
        pass
    log.write()
    figures = [(each["compared"], each["agreeing"], each["score_difference"]) for each in read(log.path)]
    assert figures == [(3, 2, 0.5), (None, None, None)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'tandem.db'}")
    make_tables(engine)
    yield engine
    engine.dispose()


def add(engine: Engine, times: list[float]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(TABLE), [row(number, time=each).values() for number, each in enumerate(times)])


def trim_all(engine: Engine, bounds: Bounds, now: float) -> list[int]:
    """How many rows went with each transaction."""
    gone, more = [], True
    while more:
        with engine.begin() as connection:
            before = connection.scalar(select(func.count()).select_from(TABLE)) or 0
            more = trim(connection, bounds, now=now)
            gone.append(before - (connection.scalar(select(func.count()).select_from(TABLE)) or 0))
    return gone


def test_the_oldest_rows_go_in_pieces_until_no_more_are_left_than_there_may_be(engine: Engine, tmp_path: Path) -> None:
    add(engine, [1000.0] * 5500)
    assert trim_all(engine, Bounds(max_rows=700, max_age_s=1e9), 1000) == [2000, 2000, 800, 0]
    assert numbers(tmp_path / "tandem.db") == list(range(4800, 5500))


def test_rows_that_are_too_old_go_whatever_their_number(engine: Engine, tmp_path: Path) -> None:
    add(engine, [float(number) for number in range(3000)])
    assert trim_all(engine, Bounds(max_rows=10_000, max_age_s=500), 2990) == [2000, 490, 0]
    assert numbers(tmp_path / "tandem.db") == list(range(2490, 3000))
    assert trim_all(engine, Bounds(max_rows=10_000, max_age_s=500), 9999) == [510, 0]
    assert trim_all(engine, Bounds(max_rows=10_000, max_age_s=500), 9999) == [0]


def test_a_row_from_a_clock_that_was_wrong_keeps_no_others(engine: Engine, tmp_path: Path) -> None:
    add(engine, [9e9, *[float(number) for number in range(1500)]])
    trim_all(engine, Bounds(max_rows=10_000, max_age_s=500), 1700)
    assert numbers(tmp_path / "tandem.db") == [0, *range(1201, 1501)]


def test_the_file_of_a_full_log_does_not_grow(engine: Engine) -> None:
    pages = []
    for _ in range(8):
        add(engine, [1000.0] * 1000)
        trim_all(engine, Bounds(max_rows=2000, max_age_s=1e9), 1000)
        with engine.begin() as connection:
            pages.append(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    assert pages[-1] - pages[3] <= 2  # of fragments: a thousand rows take some 27


def test_the_log_keeps_its_bounds_by_itself(opened: Opened) -> None:
    log = opened(max_rows=40, max_age_h=1.0)
    for number in range(100):
        log.record(row(number, time=time.time()))
    log.record(row(100))  # of long ago
    log.write()
    assert numbers(log.path) == list(range(61, 100))
