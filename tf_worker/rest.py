"""The HTTP port: the REST API and the page of metrics, over the standard library's HTTP server."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Condition, Thread
from typing import Any

from tf_worker.errors import StartError
from tf_worker.json_answer import error_answer
from tf_worker.rest_api import RestApi

log = logging.getLogger(__name__)

Page = Callable[[], str]

IDLE_S = 60.0
"""A connection on which nothing comes for so long is closed."""
LARGEST_UNZIPPED = 100 * 2**20
_PIECE = 2**20
_GZIP = 31
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class RestServer:
    """Answers what is under /v1/ from the API, and GET for each of `pages`, by path, from the moment it is made.

    Each connection has a daemon thread, which reads and writes. Raises StartError if it cannot listen.
    """

    def __init__(self, host: str, port: int, api: RestApi, pages: Mapping[str, Page], *, cors: bool) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._server.api, self._server.pages, self._server.cors = api, pages, cors
        Thread(target=self._server.serve_forever, name="rest", daemon=True).start()
        log.info("Exporting HTTP/REST API at:%s:%d ...", host, port)

    def refuse(self) -> None:
        """From now on the API answers 503. The pages stay."""
        self._server.refusing = True

    def drain(self, grace_s: float) -> None:
        """Return when what was accepted has been answered, or the grace has passed."""
        self._server.wait_until_idle(grace_s)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    api: RestApi
    pages: Mapping[str, Page]
    cors: bool
    refusing = False
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._under_way = 0
        self._changed = Condition()
        super().__init__(address, handler)

    def begin(self) -> bool:
        """A request has come: whether it is accepted."""
        with self._changed:
            self._under_way += 1
            return not self.refusing

    def end(self) -> None:
        """It has been answered."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def wait_until_idle(self, longest_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, longest_s)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's also looks up the host's full name, which can take seconds
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.info("an HTTP connection failed", exc_info=True)  # by default it is printed past the log


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    wbufsize = -1  # an answer is one packet, which does not wait for the client's acknowledgement of its head
    disable_nagle_algorithm = True
    _is_to_go_on = False

    def handle_expect_100(self) -> bool:
        self._is_to_go_on = True  # said once the request has been accepted, not here
        return True

    def do_GET(self) -> None:
        accepted = self.server.begin()
        try:
            self._handle(accepted)
            self.wfile.flush()
        finally:
            self.server.end()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815 - its names

    def _handle(self, accepted: bool) -> None:
        if self._is_to_go_on:
            self._is_to_go_on = False
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
            self.wfile.flush()
        try:
            body = self._body()
        except ValueError as error:
            self.close_connection = True  # where the next request would begin is not known
            self._answer(HTTPStatus.BAD_REQUEST, "text/plain", f"{error}\n".encode())
            return
        path = self.path.partition("?")[0]
        page = self.server.pages.get(path) if self.command == "GET" else None
        if page is not None:
            self._answer(*self._page(path, page))
        elif not path.lower().startswith("/v1/"):
            there = ", ".join(["/v1/models/NAME", *self.server.pages])
            text = f"There is no {self.path} here. On this port there is {there}.\n"
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", text.encode())
        elif not accepted:
            self.close_connection = True
            self._answer(503, "application/json", error_answer("the server is stopping").encode())
        elif self.command == "OPTIONS":
            asked = self.headers.get("Origin", "")
            known = "http://" in asked or "https://" in asked
            self._answer(HTTPStatus.OK if known else HTTPStatus.BAD_REQUEST, None, b"")
        else:
            reply = self.server.api.answer(self.command, self.path, body)
            self._answer(reply.status, "application/json", reply.json)

    def _page(self, path: str, page: Page) -> tuple[int, str, bytes]:
        if self.path != path:
            return HTTPStatus.BAD_REQUEST, "text/plain", f"Unexpected path: {self.path}. Should be {path}".encode()
        return HTTPStatus.OK, "text/plain", page().encode()  # without a version, as the real server's

    def _body(self) -> bytes:
        """The request's body, unzipped. Raises ValueError: its length is not known; ConnectionError: it ended early."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._chunks()
        else:
            lengths = set(self.headers.get_all("Content-Length", ["0"]))
            if len(lengths) > 1 or not all(length.strip().isdecimal() for length in lengths):
                raise ValueError(f"Content-Length must be one whole number, got {', '.join(sorted(lengths))}")
            body = self._read(int(lengths.pop()))
        if "gzip" in self.headers.get("Content-Encoding", ""):
            return _unzipped(body)
        return body

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(self.rfile.readline(_PIECE).partition(b";")[0], 16):
            body += self._read(size)
            self.rfile.readline(_PIECE)
        while self.rfile.readline(_PIECE).strip():  # trailers
            pass
        return bytes(body)

    def _read(self, size: int) -> bytes:
        body = bytearray()  # grows with what comes, whatever length was announced
        while len(body) < size:
            piece = self.rfile.read(min(size - len(body), _PIECE))
            if not piece:
                raise ConnectionError(f"the body ended after {len(body)} of {size} bytes")
            body += piece
        return bytes(body)

    def _answer(self, status: int, kind: str | None, body: bytes) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if self.server.cors and self.path.lower().startswith("/v1/"):
            for name, value in _CORS.items():
                self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Nothing: Prometheus asks every few seconds."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name for it
        log.info(format, *args)


def _unzipped(body: bytes) -> bytes:
    """Nothing for what is not gzip, ends early or is too large: as the real server, which then finds no document."""
    unzip = zlib.decompressobj(_GZIP)
    try:
        text = unzip.decompress(body, LARGEST_UNZIPPED)
    except zlib.error as error:
        log.info("a gzip body could not be read: %s", error)
        return b""
    return text if unzip.eof else b""
