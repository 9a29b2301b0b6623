"""Open-loop load: requests come at a constant rate, whether or not those before have been answered, as from many users.

A closed loop slows down with what it measures, and cannot overload it. One upload is sent again and again over
connections that are kept, and of the answers only the status is read: that takes about a tenth of a millisecond of a
core for each request, so that gateway and workers have the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

UNANSWERED = 0


@dataclass(frozen=True)
class Sent:
    at_s: float
    """When it was due, on the clock of `time.perf_counter`: what the generator itself was late counts, too."""
    status: int
    """UNANSWERED where the connection ended, or nothing came in time."""
    seconds: float
    retry_after_s: int | None
    late_s: float
    """Of `seconds`, the load's own: from when it was due until it was sent."""


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: OpenLoop) -> None:
        self._load = load
        self._received = b""
        self._due_s: float | None = None
        self._late_s = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  TCP's is one
        self._transport = transport

    def ask(self, due_s: float) -> None:
        assert self._transport is not None  # noqa: S101  asked when connected
        self._due_s = due_s
        self._late_s = time.perf_counter() - due_s
        self._transport.write(self._load.request)

    def give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._due_s is None:
            return
        head = head.lower()
        if len(body) < int(_header(head, b"content-length") or 0):
            return
        retry_after = _header(head, b"retry-after")
        self._end(int(head[9:12]), None if retry_after is None else int(retry_after))
        self._received = b""
        if b"\r\nconnection: close" not in head:
            self._load.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._end(UNANSWERED, None)
        if self in self._load.idle:
            self._load.idle.remove(self)

    def _end(self, status: int, retry_after_s: int | None) -> None:
        if self._due_s is not None:
            took_s = time.perf_counter() - self._due_s
            self._load.sent.append(Sent(self._due_s, status, took_s, retry_after_s, self._late_s))
            self._due_s = None
            self._load.under_way.pop(self).set_result(None)


class OpenLoop:
    def __init__(self, host: str, port: int, target: str, picture: Path) -> None:
        body = picture.read_bytes()
        self._address = host, port
        self.request = (
            f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/{picture.suffix[1:]}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.idle: list[_Connection] = []
        self.under_way: dict[_Connection, asyncio.Future[None]] = {}
        self.sent: list[Sent] = []

    async def run(self, rate: float, seconds: float, *, patience_s: float) -> Sequence[Sent]:
        """`rate` requests a second for so long, and for `patience_s` what is still owed. All, as they ended."""
        self.sent = []
        start_s = time.perf_counter()
        opening: set[asyncio.Task[None]] = set()
        number = 0
        while (now_s := time.perf_counter()) < start_s + seconds:
            while (due_s := start_s + number / rate) <= now_s:
                number += 1
                if self.idle:
                    self._ask(self.idle.pop(), due_s)
                else:
                    task = asyncio.create_task(self._open(due_s))
                    opening.add(task)
                    task.add_done_callback(opening.discard)
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        async with asyncio.timeout(patience_s):
            await asyncio.gather(*opening)
        if self.under_way:
            await asyncio.wait(self.under_way.values(), timeout=patience_s)
        given_up = dict(self.under_way)
        for connection in given_up:
            connection.give_up()
        await asyncio.gather(*given_up.values())
        return self.sent

    def close(self) -> None:
        for each in self.idle:
            each.give_up()

    async def _open(self, due_s: float) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(lambda: _Connection(self), *self._address)
        self._ask(connection, due_s)

    def _ask(self, connection: _Connection, due_s: float) -> None:
        self.under_way[connection] = asyncio.get_running_loop().create_future()
        connection.ask(due_s)


def _header(head: bytes, name: bytes) -> bytes | None:
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else None
