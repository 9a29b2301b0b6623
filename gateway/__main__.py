"""Run the gateway: `python -m gateway`, with settings from the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable

import structlog
from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from gateway import log
from gateway.app import create_app
from gateway.key_file import InvalidKeyFile
from gateway.server.listener import listen
from gateway.server.serving import Server
from gateway.settings import InvalidSettings, Settings, read_settings, unfilled_batches

_log = structlog.get_logger(__name__)


def main() -> None:
    try:
        settings = read_settings()
        log.configure(settings.log)
        serve(create_app, settings)
    except (InvalidSettings, InvalidKeyFile) as error:
        sys.exit(str(error))


def serve(make_app: Callable[[Settings], FastAPI], settings: Settings) -> None:
    """Serve the application until SIGTERM or SIGINT; what was accepted is answered first."""
    app = make_app(settings)
    for line in unfilled_batches(settings):
        _log.warning("batches_not_full", detail=line)
    # Masks are small products of matrices, in as many threads as there are CPUs: a second team of threads under each of
    # them makes them several times slower.
    threadpool_limits(1, user_api="blas")
    Server(app, settings, listen(settings.http.host, settings.http.port)).run()


if __name__ == "__main__":
    main()
