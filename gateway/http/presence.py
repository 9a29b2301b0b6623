"""Whether the client still waits for its answer: for one that has hung up, nobody goes on working."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect, Request


class Presence:
    """A block that is cancelled as soon as the client hangs up, and with it what it waits for: a place, a call to a
    worker. It then raises ClientDisconnect.

    Enter it when the whole body is read: what still comes of one would be lost.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._gone = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a request is handled in a task
        self._task = task
        # ASGI tells it to those who ask only, and the answer may be long in coming: this is the one task it costs.
        self._watch = asyncio.create_task(self._until_gone())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.cancel()
        del self._watch  # its CancelledError holds the frame, and that this: only a garbage collection would find it
        if self._gone:
            self._task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                raise ClientDisconnect from error

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
