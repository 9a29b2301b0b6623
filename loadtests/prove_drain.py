"""A gateway that is told to stop under load loses no request that it accepted: `python -m loadtests.prove_drain`.

Gateways over fake runtimes, stopped by SIGTERM at a moment by chance, again and again: of one process and of two, at
once and with a delay for a load balancer. A request is *accepted* once its client was told "connected" and has sent it,
unless the client could read before that the connection ends: `Connection: close` in an answer, or its end. Each
accepted request must be answered with 200. Who is refused or not heard when it connects was not accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support.gateway import running_gateway
from tests.support.stack import HOST, ROOT

_PICTURE = (ROOT / "models/digits/samples/7.png").read_bytes()
_HEAD = (
    f"POST /v1/models/digits/predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\n"
    f"Content-Length: {len(_PICTURE)}\r\n"
).encode()
_CONNECT_S = 5.0
_ANSWER_S = 30.0
_STOP_S = 30.0


@dataclass
class Tally:
    answered: int = 0
    after: int = 0
    """Of them, those sent after SIGTERM."""
    not_taken: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """By what became of them."""


class Client:
    """One user, who asks until nobody is there any more."""

    def __init__(
        self, port: int, tally: Tally, stopping: asyncio.Event, *, keep_alive: bool, think_s: float, slow: bool
    ) -> None:
        self._port = port
        self._tally = tally
        self._stopping = stopping
        self._keep_alive = keep_alive
        self._think_s = think_s
        self._slow = slow

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    reader, writer = await asyncio.open_connection(HOST, self._port)
            except (OSError, TimeoutError):
                self._tally.not_taken += 1
                return
            try:
                while await self._ask(reader, writer):
                    await asyncio.sleep(random.uniform(0, self._think_s))  # noqa: S311  not for secrets
                    if reader.at_eof():
                        break
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        after = self._stopping.is_set()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._send(writer)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError) as error:
            self._tally.lost[type(error).__name__] += 1
            return False
        if not head.startswith(b"http/1.1 200"):
            self._tally.lost[head.partition(b"\r\n")[0].decode()] += 1
            return False
        self._tally.answered += 1
        self._tally.after += after
        return self._keep_alive and b"connection: close" not in head

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        end = b"\r\n" if self._keep_alive else b"Connection: close\r\n\r\n"
        if not self._slow:
            writer.write(_HEAD + end + _PICTURE)
            return
        writer.write(_HEAD + end)
        step = -(-len(_PICTURE) // 5)
        for start in range(0, len(_PICTURE), step):
            await asyncio.sleep(0.1)
            writer.write(_PICTURE[start : start + step])


@contextlib.asynccontextmanager
async def _load(port: int, tally: Tally, stopping: asyncio.Event) -> AsyncIterator[None]:
    kinds = [
        *[{"keep_alive": True, "think_s": 0.0, "slow": False}] * 12,
        *[{"keep_alive": True, "think_s": 0.5, "slow": False}] * 12,
        *[{"keep_alive": False, "think_s": 0.0, "slow": False}] * 12,
        *[{"keep_alive": True, "think_s": 0.1, "slow": True}] * 4,
    ]
    async with asyncio.TaskGroup() as group:
        for kind in kinds:
            group.create_task(Client(port, tally, stopping, **kind).run())  # type: ignore[arg-type]
        yield


async def _round(var: Path, processes: int, delay_s: float) -> tuple[Tally, float, int]:
    """What clients got, how long the gateway took to stop, and how it ended."""
    tally, stopping = Tally(), asyncio.Event()
    settings = {
        "TANDEM_HTTP__PROCESSES": str(processes),
        "TANDEM_HTTP__DRAIN_DELAY_S": str(delay_s),
        "TANDEM_TORCH__MAX_QUEUE": "1000",
        "TANDEM_LOG__LEVEL": "warning",
    }
    with running_gateway(var, "--latency-ms=30", **settings) as gateway:
        port = gateway.client.base_url.port
        assert port is not None  # noqa: S101  the fixture's URL has one
        async with _load(port, tally, stopping):
            await asyncio.sleep(random.uniform(0.8, 1.6))  # noqa: S311  not for secrets
            begin_s = time.monotonic()
            stopping.set()
            gateway.process.terminate()
            code = await asyncio.to_thread(gateway.process.wait, _STOP_S)
            took_s = time.monotonic() - begin_s
    return tally, took_s, code


async def run(rounds: int) -> bool:
    """Whether no accepted request was lost."""
    console = Console(width=120)
    table = Table("stop", "processes", "delay", "answered", "sent after SIGTERM", "not taken", "lost", "took", "exit")
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            processes, delay_s = 1 + number % 2, (0.0, 0.5)[number // 2 % 2]
            tally, took_s, code = await _round(Path(folder), processes, delay_s)
            lost += tally.lost.total()
            said = ", ".join(f"{count} {what}" for what, count in tally.lost.items()) or "0"
            figures = (tally.answered, tally.after, tally.not_taken, said, f"{took_s:.1f} s", code)
            table.add_row(str(number + 1), str(processes), f"{delay_s:g} s", *map(str, figures))
    console.print(table)
    console.print("[red]lost[/]" if lost else "No accepted request was lost.")
    return not lost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    sys.exit(not asyncio.run(run(options.rounds)))
