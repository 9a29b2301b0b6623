"""locust runs the locustfile without its web interface, in a process of its own: it patches the standard library."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("torch predict", "tf predict", "auto predict", "compare")
ANSWER = {"results": [{"predictions": [{"class_id": 7, "label": "7", "score": 0.98}]}]}
NOTHING: dict[str, Any] = {"results": [{"predictions": []}]}


class Stack(Protocol):
    url: str


class Canned(BaseHTTPRequestHandler):
    """A gateway whose torch runtime is down and whose tf runtime finds nothing; the model `crossed` is always tf's."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/v1/models/crossed/") or self.path.endswith("/predict"):
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

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def canned_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "one.PNG").write_bytes(b"one")
    return folder


def locust(*arguments: str, seconds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
    return subprocess.run(
        [*command, "-u", "8", "-r", "8", "-t", f"{seconds}s", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60 + seconds, check=False,
    )  # fmt: skip


def rows(report: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(report.with_suffix(".json").read_text())}


def test_both_runtimes_of_a_real_stack_get_figures_of_their_own(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "report"
    run = locust("--host", stack.url, "--json-file", str(report), seconds=5)
    assert run.returncode == 0, run.stderr
    found = rows(report)
    assert set(found) == set(ROWS)
    for name in ROWS:
        assert found[name]["num_requests"] > 0
        assert found[name]["num_failures"] == 0


def test_what_is_wrong_with_an_answer_is_in_the_table_of_failures(canned_url: str, pictures: Path) -> None:
    run = locust("--host", canned_url, "--images", str(pictures), seconds=4)
    assert run.returncode == 1, run.stderr
    failures = run.stderr.partition("Error report")[2]
    assert "POST torch predict: 503 runtime_unavailable" in failures
    assert "POST tf predict: no prediction" in failures
    assert "POST compare: torch: runtime_unavailable" in failures
    assert "auto predict" not in failures


def test_an_answer_of_another_runtime_than_the_one_asked_is_a_failure(canned_url: str, pictures: Path) -> None:
    run = locust("--host", canned_url, "--images", str(pictures), "--model", "crossed", "TorchUser", seconds=3)
    assert run.returncode == 1, run.stderr
    assert "POST torch predict: asked torch, answered by tf" in run.stderr


def test_a_folder_without_pictures_is_one_clear_line(canned_url: str, tmp_path: Path) -> None:
    run = locust("--host", canned_url, "--images", str(tmp_path), seconds=1)
    assert run.returncode != 0
    assert f"no picture in {tmp_path}" in run.stderr
    assert "Traceback" not in run.stderr
