"""The HTTP port. So far it has one page: the server's metrics, for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from typing import Any

from tf_worker.errors import StartError

log = logging.getLogger(__name__)

Page = Callable[[], str]

IDLE_S = 60.0
"""A connection on which nothing comes for so long is closed."""


class RestServer:
    """Answers GET for each of `pages`, by path, in daemon threads from the moment it is made.

    Raises StartError if it cannot listen.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        class Handler(_Handler):
            pages_by_path = pages

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        Thread(target=self._server.serve_forever, name="rest", daemon=True).start()
        log.info("Exporting HTTP/REST API at:%s:%d ...", host, port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's also looks up the host's full name, which can take seconds
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.info("an HTTP connection failed", exc_info=True)  # by default it is printed past the log


class _Handler(BaseHTTPRequestHandler):
    pages_by_path: Mapping[str, Page]
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def do_GET(self) -> None:
        page = self.pages_by_path.get(self.path.partition("?")[0])
        if page is None:
            there = ", ".join(self.pages_by_path) or "nothing: give --monitoring_config_file for the metrics page"
            self._answer(HTTPStatus.NOT_FOUND, f"There is no {self.path} here. On this port there is {there}.\n")
            return
        self._answer(HTTPStatus.OK, page())

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")  # without a version, as the real server's
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Nothing: Prometheus asks every few seconds."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name for it
        log.info(format, *args)
