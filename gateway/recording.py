"""From an inference to its row in the request log: a bounded buffer, and a thread that empties it into the database."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog
from sqlalchemy import insert
from sqlalchemy.exc import DataError, IntegrityError

from gateway.database import FAULTS, make_tables, open_engine
from gateway.metrics import LogDrop, Metrics
from gateway.request_log import TABLE, Row
from gateway.settings import RequestLogSettings
from gateway.trimming import Bounds, trim

_log = structlog.get_logger(__name__)

_EVERY_S = 0.25
"""A process that is killed loses what has come since, and during the write: less than a second together."""
_BATCH_ROWS = 20
"""In one transaction: what is made of them keeps the interpreter from the event loop for a part of a millisecond."""
_BREATH_S = 0.001
"""Between two transactions, so that the event loop has its turn."""
_BUSY_S = 1.0
"""Longest wait for a lock: short, so that a gateway that stops need not wait longer."""
_STOP_S = 5.0
_TRIM_EVERY_S = 5.0


class Recorder(Protocol):
    def record(self, row: Row) -> None:
        """Keep `row`. Returns at once, raises nothing."""
        ...


class Withheld:
    """The row of an answer that is yet to be compared with another one."""

    def __init__(self) -> None:
        self.row: Row | None = None

    def record(self, row: Row) -> None:
        self.row = row

    def compared(self, pictures: Sequence[tuple[bool, float]]) -> None:
        """As Row.with_agreement."""
        if self.row is not None:
            self.row = self.row.with_agreement(pictures)


@contextmanager
def withheld(log: Recorder) -> Iterator[Withheld]:
    """Gives a recorder of one row, which goes to `log` when the block ends, however it ends."""
    held = Withheld()
    try:
        yield held
    finally:
        if held.row is not None:
            log.record(held.row)


class RequestLog:
    """Whatever becomes of the database, no request notices: what cannot be written in time is dropped and counted.

    Has a connection of its own: the policies' must not wait behind it.
    """

    def __init__(self, settings: RequestLogSettings, url: str, *, metrics: Metrics) -> None:
        """`url`: as Database's. Raises InvalidSettings without a driver."""
        self._enabled = settings.enabled
        self._buffer_rows = settings.buffer_rows
        self._bounds = Bounds(max_rows=settings.max_rows, max_age_s=settings.max_age_h * 3600)
        self._metrics = metrics
        # Without a sync at each commit. What is committed outlives the process all the same, and the file stays sound;
        # the last rows before a power cut are not worth that much.
        self._engine = open_engine(url, busy_s=_BUSY_S, pragmas=("synchronous=NORMAL",))
        self._buffer: deque[Row] = deque()
        self._in_hand: list[Row] = []
        """Taken from the buffer and not yet written."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._made = self._away = False
        self._trim_again_at_s = 0.0

    def start(self) -> None:
        """Have what is recorded written again and again, by a thread, until `close`."""
        if self._enabled:
            self._thread.start()

    def record(self, row: Row) -> None:
        """Have `row` written soon. Returns at once, raises nothing."""
        if not self._enabled:
            return
        if self._waiting >= self._buffer_rows:
            self._drop(1, "buffer_full")
        else:
            self._buffer.append(row)

    def write(self) -> None:
        """Write all that waits, then do a piece of what is left of trimming. Raises nothing."""
        try:
            if not self._made:
                make_tables(self._engine)
                self._made = True
            left = self._waiting
            while left > 0:
                left -= self._write_some()
                self._stopping.wait(_BREATH_S)
            if time.monotonic() >= self._trim_again_at_s and not self._stopping.is_set():
                with self._engine.begin() as connection:
                    more = trim(connection, self._bounds, now=time.time())
                self._trim_again_at_s = 0.0 if more else time.monotonic() + _TRIM_EVERY_S
        except FAULTS as error:
            self._made = False  # it may be another file by now
            self._engine.dispose()
            self._set_away(error)
        except Exception:  # a fault of ours must not end the writing
            self._give_up()
            _log.exception("request_log_failed")
        else:
            self._set_away(None)
        self._metrics.log_buffer_rows.set(self._waiting)

    def close(self) -> None:
        """Write what waits, for some seconds at most. Blocks."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        if not self._thread.is_alive():
            self._engine.dispose()
        if left := self._waiting:
            self._drop(left, "stopped")
            _log.warning(
                "request_log_incomplete", rows=left, detail="They were not written before the gateway stopped."
            )

    @property
    def _waiting(self) -> int:
        return len(self._buffer) + len(self._in_hand)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            self.write()
        self.write()

    def _write_some(self) -> int:
        """How many. Raises FAULTS; what may be tried again then stays in hand."""
        if not self._in_hand:
            self._in_hand = [self._buffer.popleft() for _ in range(min(_BATCH_ROWS, len(self._buffer)))]
        rows = len(self._in_hand)
        try:
            with self._engine.connect() as connection:
                connection.execute(insert(TABLE), [row.values() for row in self._in_hand])
                try:
                    connection.commit()
                except FAULTS:
                    # It may have been done before the connection broke; a row that is there twice is worse than none.
                    self._give_up()
                    raise
        except (DataError, IntegrityError):  # it would be refused again
            self._give_up()
            raise
        self._in_hand = []
        self._metrics.log_rows.inc(rows)
        return rows

    def _give_up(self) -> None:
        self._drop(len(self._in_hand), "not_written")
        self._in_hand = []

    def _drop(self, rows: int, reason: LogDrop) -> None:
        self._metrics.log_rows_dropped.labels(reason).inc(rows)

    def _set_away(self, error: BaseException | None) -> None:
        if error is not None and not self._away:
            _log.error(
                "request_log_away",
                reason=str(error),
                detail="Requests are answered as before; rows that find no room in the buffer are dropped and counted.",
            )
        elif error is None and self._away:
            _log.info("request_log_back")
        self._away = error is not None
