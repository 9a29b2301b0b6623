"""What requests hold in memory has a ceiling, whatever is uploaded; and nobody waits for ever at it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Fakes, StartGateway
from tests.http.test_errors import assert_problem
from tests.support.asking import count
from tests.support.pictures import encode, plain
from tests.support.waiting import wait_until

PREDICT = "/v1/models/digits/predict"
PNG = {"content-type": "image/png"}
GOOD = encode(plain(7))
TENSOR_BYTES = 32 * 32 * 3


def until(client: httpx.Client, series: str, value: float) -> None:
    wait_until(
        lambda: count(client, f"{series} ") == value, lambda: client.get("/metrics").text, patience_s=30, pause_s=0.01
    )


@pytest.fixture
def held(fakes: Fakes) -> Iterator[None]:
    """torch holds what it is sent until the test ends."""
    fakes["torch"].hold = asyncio.Event()
    yield
    fakes["torch"].hold.set()


def begin(client: httpx.Client, declared: int, body: bytes, accept: str = "*/*") -> socket.socket:
    """Begin an upload that declares so many bytes, and send these."""
    assert client.base_url.port is not None
    connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)
    lines = [
        f"POST {PREDICT} HTTP/1.1",
        "Host: x",
        "Content-Type: image/png",
        f"Content-Length: {declared}",
        f"Accept: {accept}",
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def test_an_upload_for_which_there_is_no_memory_is_refused_before_it_is_sent(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_inflight_bytes": 10_000})
    with begin(client, 9_000, bytes(4_000)) as first:
        until(client, "tandem_inflight_bytes", 4_000)
        with begin(client, 6_001, b"") as second:
            answer = second.recv(10_000)
        assert b" 429 " in answer
        assert b"\r\nretry-after: 1\r\n" in answer.lower()
        assert client.post(PREDICT, content=GOOD, headers=PNG).status_code == 200
        first.sendall(bytes(5_000))
        assert b" 415 " in first.recv(10_000)
    until(client, "tandem_inflight_bytes", 0)


def test_an_upload_that_declares_no_length_is_refused_when_it_is_too_much(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_inflight_bytes": 10_000})

    def chunks() -> Iterator[bytes]:
        for _ in range(8):
            yield bytes(1_000)

    with begin(client, 9_000, bytes(4_000)):
        until(client, "tandem_inflight_bytes", 4_000)
        assert_problem(client.post(PREDICT, content=chunks(), headers=PNG), 429, "overloaded")
    until(client, "tandem_inflight_bytes", 0)


@pytest.mark.usefixtures("held")
def test_a_request_at_the_worker_holds_its_tensors_and_no_upload(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_inflight_bytes": TENSOR_BYTES * 3})
    sockets = [begin(client, len(GOOD), GOOD) for _ in range(2)]
    until(client, "tandem_inflight_bytes", TENSOR_BYTES * 2)
    images = [("image", ("a.png", GOOD, "image/png"))] * 2
    assert_problem(client.post(PREDICT, files=images), 429, "overloaded")
    for connection in sockets:
        connection.close()
    until(client, "tandem_inflight_bytes", 0)


def test_a_request_that_is_alone_has_room_whatever_the_limits(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_inflight_bytes": 1, "max_inflight_pixels": 1})
    images = [("image", ("a.png", GOOD, "image/png"))] * 16
    assert len(client.post(PREDICT, files=images).json()["results"]) == 16
    until(client, "tandem_inflight_bytes", 0)
    until(client, "tandem_inflight_pixels", 0)


@pytest.mark.usefixtures("held")
def test_a_picture_for_which_there_are_no_pixels_waits_to_its_deadline_and_keeps_no_thread(
    start_gateway: StartGateway,
) -> None:
    client = start_gateway(limits={"max_inflight_pixels": 1_100, "decode_threads": 1})
    with begin(client, len(GOOD), GOOD, accept="image/png"):  # its picture is kept to draw on
        until(client, "tandem_inflight_pixels", 32 * 32)
        late = client.post(f"{PREDICT}?runtime=tf&timeout_ms=200", content=GOOD, headers=PNG)
        assert_problem(late, 504, "deadline_exceeded")
        small = client.post(f"{PREDICT}?runtime=tf", content=encode(plain(7, (8, 8))), headers=PNG)
        assert small.status_code == 200
    until(client, "tandem_inflight_pixels", 0)
