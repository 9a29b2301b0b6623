"""Run the gateway: `python -m gateway`, with settings from the environment."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from gateway import log
from gateway.app import create_app
from gateway.settings import Settings

_DRAIN_S = 10


def main() -> None:
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [f"TANDEM_{'__'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
        sys.exit("The settings are not valid: " + "; ".join(lines))
    log.configure(settings.log)
    serve(create_app(settings), settings)


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve `app` until SIGTERM or SIGINT; what was accepted is answered first."""
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
