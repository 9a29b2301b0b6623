"""A whole gateway over the fakes in this process, asked without a socket: what a fuzzer can do thousands of times."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import log
from gateway.app import create_app
from gateway.settings import LogSettings, Settings
from tests.fakes.runtimes import FakeRuntime
from tests.support.packages import write_store


@dataclass(frozen=True)
class Said:
    status: int
    media_type: str
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(self.body)
        return problem


class AsgiGateway:
    def __init__(self) -> None:
        log.configure(LogSettings(level="error"))
        self._stack = stack = ExitStack()
        self.var = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_store(self.var / "store", 1)
        settings = Settings(var=self.var, warm_up_requests=0)
        self._app = create_app(settings, {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf")})
        self._runner = stack.enter_context(asyncio.Runner())
        lifespan = self._app.router.lifespan_context(self._app)
        self._runner.run(lifespan.__aenter__())
        while self.ask("GET", "/readyz").status != 200:
            self._runner.run(asyncio.sleep(0.01))
        stack.callback(lambda: self._runner.run(lifespan.__aexit__(None, None, None)))

    def close(self) -> None:
        self._stack.close()

    def ask(self, method: str, path: str, query: bytes = b"", content_type: bytes = b"", body: bytes = b"") -> Said:
        return self._runner.run(self._ask(method, path, query, content_type, body))

    async def _ask(self, method: str, path: str, query: bytes, content_type: bytes, body: bytes) -> Said:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"content-type", content_type), (b"content-length", str(len(body)).encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        asked, over = False, asyncio.Event()
        status, media_type, parts = 0, "", []

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await over.wait()  # a client that stays until it has its answer
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, media_type
            if message["type"] == "http.response.start":
                status = message["status"]
                media_type = dict(message["headers"]).get(b"content-type", b"").decode("latin-1")
            else:
                parts.append(message.get("body", b""))

        try:
            await self._app(scope, receive, send)
        finally:
            over.set()
        return Said(status, media_type, b"".join(parts))
