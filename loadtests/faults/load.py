"""A steady load: so many requests a second, whatever becomes of those before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

PATIENCE_S = 20.0
"""A client of its own would have given up long before."""


@dataclass(frozen=True)
class Answered:
    begin_s: float
    end_s: float
    status: int
    """0: none came."""
    code: str
    """`ok`, the error's, or what broke the connection."""
    runtime: str
    """That answered; empty for an error."""

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


class SteadyLoad:
    def __init__(self, client: httpx.AsyncClient, path: str, picture: bytes, *, rate: float) -> None:
        self._client = client
        self._path = path
        self._picture = picture
        self._pause_s = 1 / rate
        self._tasks: set[asyncio.Task[None]] = set()
        self._generator: asyncio.Task[None] | None = None
        self.answered: list[Answered] = []

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def start(self) -> None:
        self._generator = asyncio.create_task(self._generate())

    async def stop(self) -> Sequence[Answered]:
        """All there were, once the last is answered."""
        if self._generator is not None:
            self._generator.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        return self.answered

    async def _generate(self) -> None:
        at_s = time.monotonic()
        while True:
            task = asyncio.create_task(self._ask())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            at_s += self._pause_s
            await asyncio.sleep(at_s - time.monotonic())

    async def _ask(self) -> None:
        begin_s = time.monotonic()
        try:
            answer = await self._client.post(self._path, content=self._picture, headers={"content-type": "image/png"})
            said = answer.json()
            status, code = answer.status_code, "ok" if answer.is_success else str(said["code"])
            runtime = str(said["runtime"]) if answer.is_success else ""
        except httpx.TransportError as error:
            status, code, runtime = 0, type(error).__name__, ""
        self.answered.append(Answered(begin_s, time.monotonic(), status, code, runtime))
