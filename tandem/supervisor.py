"""Keeps processes running: one that ends is started again, after a pause that grows."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tandem.backoff import Backoff
from tandem.processes import Child


@dataclass(frozen=True)
class Service:
    """A process that is to run for as long as the stack does."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    grace_s: float
    """How long it may take to end after SIGTERM, in seconds."""
    niceness: int = 0


@dataclass(frozen=True)
class Ended:
    """A service ended by itself."""

    service: Service
    how: str
    again_in_s: float


class Running(Protocol):
    """What the supervisor needs of a process that was started; `Child` is the real one."""

    async def wait(self) -> int: ...
    async def stop(self, grace_s: float) -> None: ...
    def signal(self, number: signal.Signals) -> None: ...


def describe(code: int) -> str:
    """An exit status as a person says it. Negative: the signal that ended it."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


async def start_child(service: Service) -> Running:
    """Start the service's process; its outputs are appended to its log. Raises OSError."""
    with open_log(service.log) as log:
        return await Child.start(service.command, log=log, cwd=service.cwd, env=service.env, niceness=service.niceness)


class Supervisor:
    """Starts services, starts them again when they end, and stops them. The clock and the way a process is started are
    passed in."""

    def __init__(
        self,
        on_end: Callable[[Ended], None],
        *,
        start: Callable[[Service], Awaitable[Running]] = start_child,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._on_end = on_end
        self._start = start
        self._clock = clock
        self._sleep = sleep
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, Running] = {}
        self._in_a_hurry = False

    def keep(self, service: Service) -> None:
        """Start `service` and keep it running until `stop`."""
        self._keepers[service.name] = asyncio.create_task(self._keep(service))

    async def stop(self, *names: str) -> None:
        """End these services, side by side. Returns when nothing that they started is left."""
        keepers = [keeper for name in names if (keeper := self._keepers.pop(name, None))]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    def hurry(self) -> None:
        """From now on nothing is given time to end: what runs is killed at once. `stop` is still needed."""
        self._in_a_hurry = True
        for running in self._running.values():
            running.signal(signal.SIGKILL)

    async def run_once(self, service: Service) -> int:
        """Run `service` to its end. Returns its exit status. Cancelled, it stops it. Raises OSError."""
        running = await self._start(service)
        self._running[service.name] = running
        try:
            return await running.wait()
        except asyncio.CancelledError:
            await running.stop(0 if self._in_a_hurry else service.grace_s)
            raise
        finally:
            del self._running[service.name]

    async def _keep(self, service: Service) -> None:
        backoff = Backoff()
        while True:
            began = self._clock()
            try:
                how = describe(await self.run_once(service))
            except OSError as error:
                how = f"could not be started ({error})"
            pause = backoff.after(self._clock() - began)
            self._on_end(Ended(service, how, pause))
            await self._sleep(pause)


def open_log(path: Path) -> BinaryIO:
    """Open a log for a process to append to: what `rotate` cuts off stays cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def rotate(path: Path, over_bytes: int = 0) -> None:
    """Move a log's content to `<path>.1` if it has more than `over_bytes`. A process that is writing to it goes on in
    the emptied file; a line it writes in that moment may be lost."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > over_bytes:
            with path.open("rb") as current, path.with_name(f"{path.name}.1").open("wb") as earlier:
                while os.sendfile(earlier.fileno(), current.fileno(), None, 1 << 30):
                    pass
            os.truncate(path, 0)
