"""Stands for the gateway: answers everything with the content of the file in READYZ, on the gateway's port."""

from __future__ import annotations

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = Path(os.environ["READYZ"]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = HTTPServer(("127.0.0.1", int(os.environ["TANDEM_HTTP__PORT"])), Handler)
    sys.stdout.write(f"gateway started {os.getpid()}\n")
    sys.stdout.flush()  # before it answers: then the line is there for whoever got an answer
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    with Path(os.environ["ORDER"]).open("a") as file:
        file.write("gateway\n")


if __name__ == "__main__":
    main()
