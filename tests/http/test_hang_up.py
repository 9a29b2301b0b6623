"""Clients that hang up: what was under way for them ends, and nobody is blamed."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import DeadlineExceeded
from tests.conftest import Fakes, StartGateway
from tests.support import rows
from tests.support.asking import count, set_policy
from tests.support.gateway import running_gateway
from tests.support.pictures import encode, plain
from tests.support.sockets import connected, upload
from tests.support.waiting import wait_until

PATH = "/v1/models/digits/predict?timeout_ms=60000"
PICTURE = encode(plain(7))

Ask = Callable[..., socket.socket]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Sends a request over a connection of its own, and gives that; close it to hang up."""
    opened: list[socket.socket] = []

    def ask(client: httpx.Client, path: str = PATH) -> socket.socket:
        assert client.base_url.port is not None
        connection = socket.create_connection((client.base_url.host, client.base_url.port))
        opened.append(connection)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
        connection.sendall(head.encode() + PICTURE)
        return connection

    yield ask
    for connection in opened:
        connection.close()


def until(condition: Callable[[], Any], fakes: Fakes) -> None:
    wait_until(condition, lambda: fakes, patience_s=30, pause_s=0.01)


def test_the_call_to_the_worker_is_cancelled_and_counts_as_nobodys_failure(
    client: httpx.Client, fakes: Fakes, ask: Ask, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fakes["torch"].hold = asyncio.Event()
    connection = ask(client)
    until(lambda: fakes["torch"].running == 1, fakes)
    connection.close()
    until(lambda: fakes["torch"].running == 0, fakes)
    series = 'tandem_requests_total{model="digits",outcome="cancelled",role="primary",runtime="torch"'
    until(lambda: count(client, series) == 1, fakes)
    assert count(client, 'tandem_inflight{runtime="torch"}') == 0
    (row,) = rows.wait_for(tmp_path / "tandem.db", lambda found: len(found) == 1)
    assert row["outcome"] == "cancelled"
    fakes["torch"].hold = None
    assert client.post(PATH, content=PICTURE, headers={"content-type": "image/png"}).status_code == 200
    assert "internal_error" not in capfd.readouterr().out


def test_one_that_waits_for_a_place_leaves_the_queue(start_gateway: StartGateway, fakes: Fakes, ask: Ask) -> None:
    client = start_gateway(torch={"max_inflight": 1})
    fakes["torch"].hold = asyncio.Event()
    ask(client)
    until(lambda: fakes["torch"].running == 1, fakes)
    waiting = ask(client)
    until(lambda: count(client, 'tandem_queue_depth{runtime="torch"}') == 1, fakes)
    waiting.close()
    until(lambda: count(client, 'tandem_queue_depth{runtime="torch"}') == 0, fakes)
    assert len(fakes["torch"].seen) == 1


def test_both_of_a_comparison_are_cancelled(client: httpx.Client, fakes: Fakes, ask: Ask) -> None:
    fakes["torch"].hold, fakes["tf"].hold = asyncio.Event(), asyncio.Event()
    connection = ask(client, "/v1/models/digits/compare?timeout_ms=60000")
    until(lambda: (fakes["torch"].running, fakes["tf"].running) == (1, 1), fakes)
    connection.close()
    until(lambda: (fakes["torch"].running, fakes["tf"].running) == (0, 0), fakes)


def test_both_of_a_hedged_request_are_cancelled(client: httpx.Client, fakes: Fakes, ask: Ask, tmp_path: Path) -> None:
    set_policy(
        client, tmp_path, "digits", {"policy": "fixed", "target": "torch", "hedge": {"after_ms": 1, "budget": 1}}
    )
    fakes["torch"].hold, fakes["tf"].hold = asyncio.Event(), asyncio.Event()
    connection = ask(client)
    until(lambda: (fakes["torch"].running, fakes["tf"].running) == (1, 1), fakes)
    connection.close()
    until(lambda: (fakes["torch"].running, fakes["tf"].running) == (0, 0), fakes)


def test_no_other_runtime_is_asked_for_one_that_has_gone(
    client: httpx.Client, fakes: Fakes, ask: Ask, tmp_path: Path
) -> None:
    set_policy(client, tmp_path, "digits", {"policy": "failover", "targets": ["torch", "tf"]})
    fakes["torch"].hold, fakes["torch"].error = asyncio.Event(), DeadlineExceeded("It took too long.")
    connection = ask(client)
    until(lambda: fakes["torch"].running == 1, fakes)
    connection.close()
    until(lambda: fakes["torch"].running == 0, fakes)
    until(lambda: count(client, 'tandem_requests_total{model="digits",outcome="cancelled"') == 1, fakes)
    assert (fakes["tf"].seen, count(client, "tandem_failovers_total")) == ([], 0)


@pytest.mark.parametrize("with_it", [pytest.param(True, id="with it"), pytest.param(False, id="after it")])
def test_the_call_is_cancelled_of_one_that_has_sent_its_next_request_too(tmp_path: Path, with_it: bool) -> None:
    with running_gateway(tmp_path, "--hang=torch", TANDEM_LIMITS__TIMEOUT_MS="60000") as gateway:

        def in_flight(count: int) -> None:
            series = 'tandem_inflight{runtime="torch"}'
            wait_until(lambda: gateway.count(series) == count, gateway.output.read_text, patience_s=30, pause_s=0.01)

        with connected(gateway.client) as raw:
            raw.send(upload() * (2 if with_it else 1))
            in_flight(1)
            if not with_it:
                raw.send(upload())
        in_flight(0)
        assert gateway.count("tandem_requests_total{") == 1


def test_its_shadow_goes_on(client: httpx.Client, fakes: Fakes, ask: Ask, tmp_path: Path) -> None:
    set_policy(client, tmp_path, "digits", {"policy": "shadow", "primary": "torch", "shadow": "tf", "control_rate": 0})
    fakes["torch"].hold = asyncio.Event()
    connection = ask(client)
    until(lambda: fakes["torch"].running == 1, fakes)
    connection.close()
    until(lambda: count(client, 'tandem_requests_total{model="digits",outcome="ok",role="shadow"') == 1, fakes)


def test_a_picture_that_waits_for_a_thread_is_not_decoded(
    start_gateway: StartGateway, fakes: Fakes, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, decoded = threading.Event(), threading.Event(), []

    def slow(*_: object, **__: object) -> None:
        decoded.append(threading.current_thread())
        begun.set()
        may_end.wait(30)
        raise DeadlineExceeded("It took too long.")

    monkeypatch.setattr("gateway.decoding.pixels_of", slow)
    client = start_gateway(limits={"decode_threads": 1})
    first = ask(client)
    assert begun.wait(30)
    next_one, waiting = ask(client), ask(client)
    until(lambda: count(client, "tandem_decode_queue_depth") == 1, fakes)
    waiting.close()
    until(lambda: count(client, "tandem_decode_queue_depth") == 0, fakes)
    next_one.close()
    until(lambda: count(client, "tandem_decoding") == 1, fakes)
    may_end.set()
    assert b" 504 " in first.recv(1000)
    assert len(decoded) == 1
