"""A closed loop: so many callers, each asking again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Figures:
    images_per_s: float
    p50_ms: float
    p99_ms: float
    images: int


def figures(latencies_s: Sequence[float], elapsed_s: float) -> Figures:
    p50, p99 = np.percentile(latencies_s, [50, 99]) * 1000
    return Figures(len(latencies_s) / elapsed_s, float(p50), float(p99), len(latencies_s))


async def closed_loop(callers: Sequence[Call], seconds: float) -> Figures:
    """Each caller in turn for `seconds`. An exception in a call ends the loop: a failed answer is no throughput."""
    latencies: list[float] = []
    start_s = time.perf_counter()
    end_s = start_s + seconds

    async def keep_asking(call: Call) -> None:
        while (begin_s := time.perf_counter()) < end_s:
            await call()
            latencies.append(time.perf_counter() - begin_s)

    async with asyncio.TaskGroup() as group:
        for call in callers:
            group.create_task(keep_asking(call))
    return figures(latencies, time.perf_counter() - start_s)


class HttpCaller:
    """Uploads one picture again and again over one kept connection.

    The request is made once and the answer only cut out: on two cores a full HTTP client would cost more than the
    gateway that it measures.
    """

    def __init__(self, host: str, port: int, path: str, picture: Path, expected: str) -> None:
        body = picture.read_bytes()
        self._address = host, port
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/{picture.suffix[1:]}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._expected = expected
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self) -> None:
        """Raises RuntimeError for any answer but 200 with the expected label."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"The gateway answered {head.splitlines()[0]!r}: {body!r}")
        if self._expected and (label := json.loads(body)["results"][0]["predictions"][0]["label"]) != self._expected:
            raise RuntimeError(f"The gateway answered {label}, not {self._expected}.")

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()
