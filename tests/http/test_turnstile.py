"""Predictions that are refused before all else, since there is no room for them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import structlog

from gateway.http import context
from tests.conftest import Fakes, StartGateway
from tests.http.test_errors import GOOD, PNG, assert_problem
from tests.http.test_keys import add_key
from tests.support.asking import count
from tests.support.waiting import wait_until

PREDICT = "/v1/models/digits/predict"
FULL = {"max_inflight": 1, "max_queue": 0}


@contextmanager
def full(client: httpx.Client, fakes: Fakes, headers: dict[str, str] | None = None) -> Iterator[None]:
    """The torch runtime's only place is held in the block."""
    release = asyncio.Event()
    fakes["torch"].hold = release

    def ask() -> None:
        client.post(f"{PREDICT}?timeout_ms=20000", content=GOOD, headers=PNG | (headers or {}))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: fakes["torch"].running, lambda: "it was not asked")
    try:
        yield
    finally:
        release.set()
        thread.join()


def test_it_is_counted_and_answered_as_any_refusal_and_its_connection_is_kept(
    start_gateway: StartGateway, fakes: Fakes
) -> None:
    client = start_gateway(torch=FULL)
    with full(client, fakes), socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
        refused = client.post(PREDICT, content=GOOD, headers=PNG | {"x-request-id": "mine"})
        assert_problem(refused, 429, "overloaded")
        assert refused.headers["x-request-id"] == "mine"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-content-type-options"] == "nosniff"
        # The head alone is answered; the body that then comes is no request, and the next one is answered.
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        for _ in range(2):
            raw.sendall(head.encode())
            answer = b""
            while b"}" not in answer:
                answer += raw.recv(65536)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"connection: close" not in answer.lower()
            raw.sendall(GOOD)
        labels = 'model="digits",outcome="overloaded",role="primary",runtime="torch",version="2"'
        assert count(client, f"tandem_requests_total{{{labels}}}") == 3
        assert count(client, 'tandem_rejected_total{reason="overloaded"}') == 3
        assert client.post(f"{PREDICT}?runtime=tf", content=GOOD, headers=PNG).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param(f"{PREDICT}?timeout=5", 422, "invalid_parameter", id="unknown parameter"),
        pytest.param(f"{PREDICT}?top_k=0", 422, "invalid_parameter", id="parameter out of range"),
        pytest.param("/v1/models/letters/predict", 404, "model_not_found", id="unknown model"),
        pytest.param(f"{PREDICT}?version=9", 404, "model_not_found", id="unknown version"),
    ],
)
def test_what_is_wrong_with_a_request_is_still_said(
    start_gateway: StartGateway, fakes: Fakes, path: str, status: int, code: str
) -> None:
    client = start_gateway(torch=FULL)
    with full(client, fakes):
        assert_problem(client.post(path, content=GOOD, headers=PNG), status, code)


def test_keys_are_looked_at_first(start_gateway: StartGateway, fakes: Fakes, tmp_path: Path) -> None:
    good, other, rated = (
        add_key(tmp_path, "predict"),
        add_key(tmp_path, "read", name="reader"),
        add_key(tmp_path, "predict", name="rated", rate="1/minute"),
    )
    client = start_gateway(torch=FULL, keys={"required": True})
    with full(client, fakes, good):
        assert_problem(client.post(PREDICT, content=GOOD, headers=PNG), 401, "unauthenticated")
        assert_problem(client.post(PREDICT, content=GOOD, headers=PNG | other), 403, "forbidden")
        assert_problem(client.post(PREDICT, content=GOOD, headers=PNG | good), 429, "overloaded")
        first, second = (client.post(PREDICT, content=GOOD, headers=PNG | rated) for _ in range(2))
        assert_problem(first, 429, "overloaded")
        assert first.headers["ratelimit"].startswith('"rated";r=0')
        assert_problem(second, 429, "rate_limited")


def test_a_flood_of_refusals_has_few_lines_in_the_log_which_say_how_many_they_stand_for(
    start_gateway: StartGateway, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = structlog.testing.LogCapture()
    lines = captured.entries
    log = structlog.wrap_logger(None, processors=[captured], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr(context, "_log", log)
    client = start_gateway(torch=FULL)
    asked = 0
    with full(client, fakes):

        def refusals() -> list[int]:
            return [line.get("left_out", 0) for line in lines if line.get("outcome") == "overloaded"]

        while not sum(refusals()):  # until a second ends of which some were left out
            assert client.post(PREDICT, content=GOOD, headers=PNG).status_code == 429
            asked += 1
        assert asked == len(refusals()) + sum(refusals())
        assert all(line["request_id"] for line in lines if line["event"] == "request")
