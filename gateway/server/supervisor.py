"""Several processes that serve one port: they are started, started again when they die, and stopped together."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from gateway.server.board import Board
from gateway.server.listener import listen, refuse_newcomers
from gateway.server.place import Place, forget_live_gauges
from gateway.settings import Settings

_log = structlog.get_logger(__name__)

_METRICS = "tandem-metrics-"
_STEADY_S = 10.0
"""Who ran for so long is started again at once."""
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


@contextmanager
def _metrics_folder() -> Iterator[str]:
    """A folder for as long as this process lives; those of supervisors that were killed are removed."""
    for left_over in Path(tempfile.gettempdir()).glob(f"{_METRICS}*"):
        with suppress(OSError), (left_over / "lock").open() as lock:  # of another user, or in use
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=_METRICS) as folder, (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


class Supervisor:
    """It serves nothing and imports little. It holds the listening socket: connections that no process has taken yet
    outlive each of them."""

    def __init__(self, settings: Settings) -> None:
        self._http = settings.http
        self._stop = asyncio.Event()
        self._signal: signal.Signals | None = None
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._begun_s: dict[int, float] = {}
        self._failing: set[int] = set()
        """Where the last run ended by itself, soon."""

    def run(self) -> None:
        """Until SIGTERM or SIGINT, by which this process then ends itself, as it would without a supervisor."""
        asyncio.run(self._run())
        if self._signal is not None:
            signal.signal(self._signal, signal.SIG_DFL)
            signal.raise_signal(self._signal)
        sys.exit(1)

    async def _run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._told, number)
        slots = self._http.processes
        with (
            listen(self._http.host, self._http.port) as self._listening,
            _metrics_folder() as metrics,
            tempfile.TemporaryFile() as board,
        ):
            board.truncate(Board.size(slots))
            self._board = Board(board.fileno(), slots)
            theirs, ours = os.pipe()
            places = [
                Place(slot, slots, self._listening.fileno(), board.fileno(), theirs, metrics) for slot in range(slots)
            ]
            for place in places:
                self._board.gone(place.slot)
            keepers = [asyncio.create_task(self._keep(place)) for place in places]
            await self._stop.wait()
            await self._end(keepers)
            os.close(theirs)
            os.close(ours)

    def _told(self, number: signal.Signals) -> None:
        if self._signal is number is signal.SIGINT:  # in a hurry
            self._send(signal.SIGKILL)
        self._signal = number
        self._stop.set()

    async def _keep(self, place: Place) -> None:
        pause_s = 0.0
        while not self._stop.is_set():
            self._begun_s[place.slot] = time.monotonic()
            process = self._running[place.slot] = await asyncio.create_subprocess_exec(
                *(sys.executable, *sys.orig_argv[1:]),
                env={**os.environ, **place.environment()},
                pass_fds=place.descriptors,
            )
            if self._stop.is_set():  # meanwhile
                process.terminate()
            code = await process.wait()
            del self._running[place.slot]
            self._board.gone(place.slot)
            forget_live_gauges(Path(place.metrics), place.slot)
            if self._stop.is_set():
                return
            _log.error("process_ended", process=place.slot, exit_status=code)
            steady = self._steady(place.slot)
            if code > 0 and not steady:
                self._failing.add(place.slot)
            self._failing -= {slot for slot in (place.slot, *self._running) if self._steady(slot)}
            if len(self._failing) == self._http.processes:  # it is nothing that another start would mend
                self._stop.set()
                return
            pause_s = 0.0 if steady else min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()

    def _steady(self, slot: int) -> bool:
        return time.monotonic() - self._begun_s[slot] >= _STEADY_S

    async def _end(self, keepers: list[asyncio.Task[None]]) -> None:
        self._send(signal.SIGTERM)
        if self._running:
            await asyncio.wait(keepers, timeout=self._http.drain_delay_s, return_when=asyncio.ALL_COMPLETED)
        refuse_newcomers(self._listening)
        _, left = await asyncio.wait(keepers, timeout=self._http.stop_s - self._http.drain_delay_s)
        if left:
            _log.error("processes_killed", processes=sorted(self._running))
            self._send(signal.SIGKILL)
            await asyncio.wait(left)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)
