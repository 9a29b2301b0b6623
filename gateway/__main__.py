"""Run the gateway: `python -m gateway`, with settings from the environment."""

from __future__ import annotations

import sys

import structlog
import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from gateway import log
from gateway.app import create_app
from gateway.key_file import InvalidKeyFile
from gateway.settings import InvalidSettings, Settings, read_settings, unfilled_batches

_log = structlog.get_logger(__name__)
_DRAIN_S = 10


def main() -> None:
    try:
        settings = read_settings()
        log.configure(settings.log)
        app = create_app(settings)
    except (InvalidSettings, InvalidKeyFile) as error:
        sys.exit(str(error))
    serve(app, settings)


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve `app` until SIGTERM or SIGINT; what was accepted is answered first."""
    for line in unfilled_batches(settings):
        _log.warning("batches_not_full", detail=line)
    # Masks are small products of matrices, in as many threads as there are CPUs: a second team of threads under each of
    # them makes them several times slower.
    threadpool_limits(1, user_api="blas")
    uvicorn.run(
        app,
        host=settings.http.host,
        port=settings.http.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )


if __name__ == "__main__":
    main()
