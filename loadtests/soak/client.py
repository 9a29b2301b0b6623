"""HTTP by hand: what a soak must do no HTTP library does, such as to hang up in the middle of an upload."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_KEPT_S = 2.0
"""A kept connection that has rested longer is not used again: the gateway may be about to close it."""
_PATIENCE_S = 90.0


class Broken(Exception):
    """The gateway closed a connection on which it owed an answer."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    last: bool
    """Whether the gateway closes the connection after it."""

    @property
    def why(self) -> str:
        """What it says of itself, in short."""
        try:
            problem = json.loads(self.body)
            return f"{problem['code']}: {problem['detail']}"
        except (ValueError, KeyError, TypeError):
            return self.body[:200].decode(errors="replace")


def request(method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of a request. Names of `headers` have `_` in the place of `-`."""
    lines = [f"{method} {target} HTTP/1.1", "Host: soak"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None and "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


@dataclass(frozen=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def reply(self) -> Reply:
        """Raises Broken."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = await self.reader.readuntil(b"\r\n\r\n")
                lower = head.lower()
                length = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
                body = await self.reader.readexactly(length)
                return Reply(int(head.split(maxsplit=2)[1]), body, b"\r\nconnection: close" in lower)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Broken(f"closed without a whole answer: {error}") from error

    def reset(self) -> None:
        """Hang up at once, and throw away what is still on its way: an RST, as of a process that was killed."""
        own: socket.socket = self.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Hang up in good order."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Client:
    """Asks over connections that it keeps, as most clients do."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._kept: list[tuple[Connection, float]] = []

    async def open(self) -> Connection:
        return Connection(*await asyncio.open_connection(*self._address))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Connection]:
        """A connection of its own, closed at the end of the block."""
        connection = await self.open()
        try:
            yield connection
        finally:
            await connection.close()

    async def ask(self, request: bytes) -> Reply:
        """Raises Broken."""
        connection = await self._one()
        again = False
        try:
            with suppress(ConnectionError):  # an answer may come before all is sent, and the connection go with it
                connection.writer.write(request)
                await connection.writer.drain()
            reply = await connection.reply()
            again = not reply.last
        finally:
            if again:
                self._kept.append((connection, time.monotonic()))
            else:
                await connection.close()
        return reply

    async def close(self) -> None:
        while self._kept:
            await self._kept.pop()[0].close()

    async def _one(self) -> Connection:
        while self._kept:
            connection, since_s = self._kept.pop()
            if time.monotonic() - since_s < _KEPT_S and not connection.reader.at_eof():
                return connection
            await connection.close()
        return await self.open()
