"""A client over a bare socket, which costs next to nothing: it waits for its answer, sends slowly, or hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.stack import HOST

_DRIP_S = 0.02


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def ask(self, path: str, picture: bytes, *, length: int | None = None) -> float:
        """Send it now, in a body of `length` bytes if that is more; when that was, by the monotonic clock."""
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\n"
        request = f"{head}Content-Length: {length or len(picture)}\r\n\r\n".encode() + picture
        now_s = time.monotonic()
        self._writer.write(request)
        return now_s

    async def drip(self) -> None:
        """Send more of the body, a byte now and then, until cancelled."""
        while True:
            await asyncio.sleep(_DRIP_S)
            self._writer.write(b"\0")

    async def answer(self) -> str:
        """Its status and, of an error, the code. Raises OSError and EOFError where none comes."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = json.loads(await self._reader.readexactly(length))
        return f"{int(head[9:12])} {body.get('code', 'ok')}"

    def hang_up(self) -> float:
        """When it did, by the monotonic clock."""
        now_s = time.monotonic()
        self._writer.close()
        return now_s


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """It hangs up when the block ends, if not before."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
