"""Hostile HTTP, written by hand to a real gateway process: each attack ends with an answer that names it or with the
connection, and whoever asks properly meanwhile is answered."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.sockets import PICTURE, Raw, Reply, connected, upload
from tests.support.waiting import wait_until

MOST = 100
SURPLUS = 64
GET = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n"
GROWTH_BYTES = 60 << 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {
        "HTTP__HEADER_TIMEOUT_S": "1",
        "HTTP__BODY_TIMEOUT_S": "1",
        "HTTP__KEEP_ALIVE_S": "1",
        "HTTP__MAX_CONNECTIONS": str(MOST),
        "LIMITS__MAX_UPLOAD_BYTES": "200000",
    }
    with running_gateway(
        tmp_path_factory.mktemp("var"), **{f"TANDEM_{name}": value for name, value in settings.items()}
    ) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _good_requests_are_answered_and_nothing_breaks(gateway: Gateway) -> Iterator[None]:
    yield
    with connected(gateway.client) as raw:
        raw.send(upload())
        assert raw.reply().status == 200
    said = gateway.output.read_text()
    assert "Traceback" not in said
    assert '"status": 500' not in said


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[Raw]:
    with connected(gateway.client) as raw:
        yield raw


def code(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == json.loads(reply.body)["request_id"]
    return str(json.loads(reply.body)["code"])


def drip(raw: Raw, data: bytes, times: int = 600) -> None:
    """Send `data` again and again, slowly, until the other side says something or ends."""
    for _ in range(times):
        try:
            raw.send(data)
        except OSError:
            return
        if select.select([raw.socket], [], [], 0.05)[0]:
            return
    raise AssertionError("the gateway let it go on for half a minute")


# Time


@pytest.mark.parametrize("begin", [b"G", GET, GET + b"X-Slow: "], ids=["one-byte", "first-line", "in-a-header"])
def test_a_head_that_stops_arriving_is_a_time_out(raw: Raw, begin: bytes) -> None:
    raw.send(begin)
    reply = raw.reply()
    assert (reply.status, code(reply)) == (408, "request_timeout")
    assert raw.ended


def test_a_head_that_arrives_byte_by_byte_has_no_more_time_than_one_that_stops(raw: Raw) -> None:
    raw.send(GET + b"X-Slow: ")
    drip(raw, b"a")
    assert (raw.reply().status, raw.ended) == (408, True)


def test_a_connection_that_never_asks_is_closed(raw: Raw) -> None:
    assert raw.ended


def test_empty_lines_do_not_keep_a_connection_open(raw: Raw) -> None:
    raw.send(GET + b"\r\n")
    assert raw.reply().status == 200
    drip(raw, b"\r\n")
    assert raw.ended


def test_a_body_that_arrives_byte_by_byte_is_a_time_out(raw: Raw) -> None:
    raw.send(upload(b"", length=100_000))
    drip(raw, b"a")
    reply = raw.reply()
    assert (reply.status, code(reply)) == (408, "request_timeout")
    drip(raw, b"a")
    assert raw.ended


def test_a_body_that_is_shorter_than_it_says_is_a_time_out(raw: Raw) -> None:
    raw.send(upload(length=len(PICTURE) + 10))
    reply = raw.reply()
    assert (reply.status, code(reply)) == (408, "request_timeout")


def test_a_client_that_hangs_up_in_its_body_leaves_nothing_behind(gateway: Gateway) -> None:
    for _ in range(50):
        with connected(gateway.client) as raw:
            raw.send(upload(length=100_000))
    wait_until(lambda: gateway.count("tandem_connections") <= 3, gateway.output.read_text, patience_s=30, pause_s=0.05)


# Size


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(GET + b"X-Big: " + b"a" * 1_000_000 + b"\r\n\r\n", id="one-header"),
        pytest.param(GET + b"".join(b"X-%d: a\r\n" % number for number in range(50_000)) + b"\r\n", id="many-headers"),
        pytest.param(GET + b"A" * 1_000_000 + b": a\r\n\r\n", id="the-name-of-a-header"),
        pytest.param(b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: gateway\r\n\r\n", id="the-path"),
        pytest.param(GET + b"X-Endless: " + b"a" * 400_000, id="without-an-end"),
        pytest.param(GET + b"Cookie: " + b"a" * 40_000 + b"\r\n\r\n", id="a-little-over"),
    ],
)
def test_a_giant_head_is_refused(raw: Raw, request_: bytes) -> None:
    raw.send(request_)
    reply = raw.reply()
    assert (reply.status, code(reply)) == (431, "head_too_large")
    assert reply.headers["connection"] == "close"
    assert raw.ended


def test_a_head_of_30_kilobytes_is_read(raw: Raw) -> None:
    raw.send(GET + b"Cookie: " + b"a" * 30_000 + b"\r\n\r\n")
    assert raw.reply().status == 200


def test_an_upload_over_the_limit_is_answered_though_the_client_goes_on_sending(raw: Raw) -> None:
    raw.send(upload(b"", "Connection: close", length=50_000_000))
    drip(raw, b"a" * 50_000)
    reply = raw.reply()
    assert (reply.status, code(reply)) == (413, "image_too_large")
    drip(raw, b"a" * 50_000)
    assert raw.ended


def test_an_upload_without_a_length_is_refused_when_it_is_over_the_limit(raw: Raw) -> None:
    raw.send(b"POST /v1/models/digits/predict HTTP/1.1\r\nHost: g\r\nContent-Type: image/png\r\n")
    raw.send(b"Transfer-Encoding: chunked\r\n\r\n")
    drip(raw, b"4000\r\n" + b"a" * 0x4000 + b"\r\n")
    reply = raw.reply()
    assert (reply.status, code(reply)) == (413, "image_too_large")


# Lies


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6\r\n", id="two-lengths"),
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", id="length-and-chunks"),
        pytest.param(b"Content-Length: -1\r\n", id="negative"),
        pytest.param(b"Content-Length: +5\r\n", id="plus"),
        pytest.param(b"Content-Length: 0x5\r\n", id="hexadecimal"),
        pytest.param(b"Content-Length: 5, 5\r\n", id="a-list"),
        pytest.param(b"Content-Length: 99999999999999999999999\r\n", id="more-than-64-bits"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n", id="chunks-not-last"),
        pytest.param(b"Transfer-Encoding: gzip\r\n", id="an-unknown-coding"),
        pytest.param(b"Transfer-Encoding : chunked\r\n", id="a-space-before-the-colon"),
        pytest.param(b"X: a\r\n folded\r\n", id="a-folded-line"),
        pytest.param(b"X: a\0b\r\n", id="a-zero-byte"),
        pytest.param(b"No colon at all\r\n", id="no-colon"),
    ],
)
def test_a_head_that_two_servers_could_read_differently_is_refused(raw: Raw, lines: bytes) -> None:
    raw.send(b"POST /v1/models/digits/predict HTTP/1.1\r\nHost: gateway\r\n" + lines + b"\r\nhello")
    reply = raw.reply()
    assert (reply.status, code(reply)) == (400, "bad_request")
    assert raw.ended


def test_what_a_body_has_over_its_length_is_no_request(raw: Raw) -> None:
    raw.send(upload(PICTURE, length=len(PICTURE) // 2))
    reply = raw.reply()
    assert (reply.status, reply.headers["connection"]) == (422, "close")  # a truncated picture
    assert raw.ended


PREDICT = b"POST /v1/models/digits/predict HTTP/1.1\r\nHost: gateway\r\n"
CHUNKED = PREDICT + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("chunks", "statuses"),
    [
        pytest.param(b"zz\r\n", {400}, id="no-size"),
        pytest.param(b"fffffffffffffffff\r\n", {400}, id="a-giant-size"),
        pytest.param(b"1\r\nab\r\n", {400}, id="longer-than-its-size"),
        pytest.param(b"1;" + b"a" * 300_000, {400}, id="an-endless-extension"),
        pytest.param(b"1\r\na\r\n0\r\nX: " + b"a" * 300_000, {400, 431}, id="an-endless-trailer"),
        pytest.param(b"1;aaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 20_000, {400}, id="more-framing-than-content"),
        pytest.param(b"1\r\na\r\n0\r\n" + b"X: aaaaaaaaaa\r\n" * 10_000, {431}, id="many-trailers"),
    ],
)
def test_chunks_that_are_none_or_never_end_are_refused(raw: Raw, chunks: bytes, statuses: set[int]) -> None:
    raw.send(CHUNKED)
    raw.send(chunks)
    reply = raw.reply()
    assert reply.status in statuses, reply
    assert raw.ended


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2"),
        pytest.param(b"GET /livez HTTP/9.9\r\n\r\n", id="http-9.9"),
        pytest.param(bytes(range(256)) * 10, id="every-byte"),
        pytest.param(b"SSH-2.0-OpenSSH_9.0\r\n", id="ssh"),
        pytest.param(b"*3\r\n$3\r\nSET\r\n", id="redis"),
        pytest.param(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", id="a-proxy-is-wanted"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: g\r\n\r\n", id="a-path-that-is-not-ascii"),
    ],
)
def test_what_is_not_http_for_this_server_is_refused(raw: Raw, garbage: bytes) -> None:
    raw.send(garbage)
    reply = raw.reply()
    assert (reply.status, code(reply)) == (400, "bad_request")
    assert raw.ended


@pytest.mark.parametrize(
    "target",
    [b"*", b"/%00", b"/%ff%fe", b"/../../etc/passwd", b"//livez", b"/v1/models/..%2f..%2fx", b"http://other/nothing"],
    ids=["no-path", "zero", "no-utf-8", "dots", "two-slashes", "escaped-dots", "absolute"],
)
def test_a_strange_path_is_not_found(raw: Raw, target: bytes) -> None:
    raw.send(b"GET " + target + b" HTTP/1.1\r\nHost: g\r\n\r\n")
    reply = raw.reply()
    assert (reply.status, code(reply)) == (404, "not_found" if b"models" not in target else code(reply))


def test_http_0_9_is_answered_and_closed(raw: Raw) -> None:
    raw.send(b"GET /livez\r\n\r\n")
    assert (raw.reply().status, raw.ended) == (200, True)


@pytest.mark.parametrize("to", [b"websocket", b"h2c"])
def test_an_upgrade_is_not_made_and_the_request_is_answered(raw: Raw, to: bytes) -> None:
    raw.send(GET + b"Connection: Upgrade\r\nUpgrade: " + to + b"\r\n\r\n")
    reply = raw.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert raw.ended


# Many


def test_requests_sent_ahead_are_answered_in_order_and_not_without_end(raw: Raw, gateway: Gateway) -> None:
    before = psutil.Process(gateway.process.pid).memory_info().rss
    flood = (GET + b"\r\n") * 5_000
    with suppress(OSError):  # it may hang up
        for _ in range(100):
            raw.send(flood)
    statuses: list[int] = []
    with suppress(EOFError, ConnectionResetError):
        while True:
            statuses.append(raw.reply().status)
    assert set(statuses) == {200}
    assert len(statuses) < 100
    assert psutil.Process(gateway.process.pid).memory_info().rss - before < GROWTH_BYTES


def test_a_few_requests_sent_ahead_are_all_answered(raw: Raw) -> None:
    raw.send((GET + b"\r\n") * 8 + upload())
    assert [raw.reply().status for _ in range(9)] == [200] * 9


BOUNDARY = PREDICT + b"Content-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\na\r\n'
NESTED = b'--x\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(PART * 2_000, {400, 422}, id="endless-parts"),
        pytest.param(NESTED * 1_000, {400, 422}, id="parts-in-parts"),
        pytest.param(b"--x\r\nX: " + b"a" * 150_000, {400}, id="an-endless-header-of-a-part"),
        pytest.param(b"--x\r\n" + b"X: a\r\n" * 20_000, {400}, id="endless-headers-of-a-part"),
        pytest.param(b"--x" * 40_000, {400}, id="only-boundaries"),
        pytest.param(b"a" * 150_000, {400}, id="no-boundary"),
    ],
)
def test_multipart_that_never_ends_is_refused(raw: Raw, body: bytes, expected: set[int]) -> None:
    raw.send(BOUNDARY + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert raw.reply().status in expected


def test_thousands_of_idle_connections_keep_nobody_out(gateway: Gateway) -> None:
    process = psutil.Process(gateway.process.pid)
    address = gateway.client.base_url.host, gateway.client.base_url.port
    with ExitStack() as stack:
        for _ in range(2_000):
            idle = stack.enter_context(socket.socket())
            idle.setblocking(False)
            idle.connect_ex(address)
        statuses: list[int] = []
        with httpx.Client(base_url=gateway.client.base_url, timeout=60) as client:
            while (
                200 not in statuses[-3:]
            ):  # those who come first are told that it is full, until the idle ones are closed
                answer = client.get("/livez")
                statuses.append(answer.status_code)
                if answer.status_code == 503:
                    assert answer.json()["code"] == "too_many_connections"
                    assert answer.headers["retry-after"] == "1"
                assert len(process.net_connections("tcp")) < MOST + SURPLUS + 20
        assert set(statuses) <= {200, 503}
    wait_until(lambda: gateway.count("tandem_connections") < 5, gateway.output.read_text, patience_s=60, pause_s=0.1)


def test_slow_clients_do_not_slow_down_a_good_one(gateway: Gateway) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            slow = stack.enter_context(connected(gateway.client))
            slow.send(GET)
        with connected(gateway.client) as good:
            for _ in range(20):
                good.send(upload())
                assert good.reply().status == 200
