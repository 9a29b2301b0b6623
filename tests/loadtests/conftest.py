"""What the load tests' requests go to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

ANSWER = {"results": [{"predictions": [{"class_id": 7, "label": "7", "score": 0.98}]}]}
NOTHING: dict[str, Any] = {"results": [{"predictions": []}]}


@pytest.fixture
def gateway_url(client: httpx.Client) -> str:
    """A gateway over the fake runtimes, with the models `digits` and `shapes`."""
    return str(client.base_url).rstrip("/")


@dataclass
class Seen:
    """What came to the canned gateway."""

    url: str
    connections: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    uploads: set[tuple[str, bytes]] = field(default_factory=set)
    """Media types and pictures."""
    authorizations: Counter[str | None] = field(default_factory=Counter)


class Canned(BaseHTTPRequestHandler):
    """A gateway whose torch runtime is down and whose tf runtime finds nothing.

    The model `crossed` is always answered by tf, and `busy` has no room.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seen: Seen

    def setup(self) -> None:
        super().setup()
        self.seen.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.paths[self.path] += 1
        self.seen.authorizations[self.headers["Authorization"]] += 1
        self.seen.uploads.add((self.headers["Content-Type"], body))
        if self.path.startswith("/v1/models/busy/"):
            self.answer(429, {"code": "overloaded"})
        elif self.path.startswith("/v1/models/crossed/") or self.path.endswith("/predict"):
            self.answer(200, {"runtime": "tf", **ANSWER})
        elif self.path.endswith("/compare"):
            self.answer(200, {"runtimes": {"torch": {"error": {"code": "runtime_unavailable"}}, "tf": NOTHING}})
        elif self.path.endswith("runtime=torch"):
            self.answer(503, {"code": "runtime_unavailable"})
        else:
            self.answer(200, {"runtime": "tf", **NOTHING})

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle(self) -> None:
        with suppress(ConnectionError):  # locust hangs up on what is under way at a run's end
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def canned() -> Iterator[Seen]:
    seen = Seen(url="")
    handler = type("Handler", (Canned,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen.url = f"http://127.0.0.1:{server.server_port}"
        yield seen
        server.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "one.PNG").write_bytes(b"one")
    (folder / "two.jpeg").write_bytes(b"two")
    (folder / "notes.txt").write_bytes(b"no picture")
    return folder
