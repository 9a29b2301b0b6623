"""A real gateway, served by uvicorn on a free port of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tests.support.stack import free_ports


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve `app`; its base URL. Stopped and joined at the end."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    (port,) = free_ports(1)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, loop="asyncio", ws="none", log_config=None, timeout_graceful_shutdown=1
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        if not started.wait(30):
            raise RuntimeError("The gateway did not start in 30 s.")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
