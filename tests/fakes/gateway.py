"""The gateway over the fake runtimes, to measure it alone: `python -m tests.fakes.gateway`."""

from __future__ import annotations

import uvicorn

from gateway import log
from gateway.app import create_app
from gateway.settings import Settings
from tests.fakes.runtimes import FakeRuntime

if __name__ == "__main__":
    settings = Settings()
    log.configure(settings.log)
    uvicorn.run(
        create_app(settings, {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf")}),
        host=settings.http.host,
        port=settings.http.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
    )
