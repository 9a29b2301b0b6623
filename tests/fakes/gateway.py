"""The gateway over the fake runtimes, to measure it alone: `python -m tests.fakes.gateway`."""

from __future__ import annotations

from gateway import log
from gateway.__main__ import serve
from gateway.app import create_app
from gateway.settings import Settings
from tests.fakes.runtimes import FakeRuntime

if __name__ == "__main__":
    settings = Settings()
    log.configure(settings.log)
    serve(create_app(settings, {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf")}), settings)
