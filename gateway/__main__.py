"""Run the gateway: `python -m gateway`, with settings from the environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway import log
from gateway.server.place import Place
from gateway.settings import InvalidSettings, Settings, read_settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gateway", description="Tandem's gateway. docs/settings.md has all."
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that share the port: TANDEM_HTTP__PROCESSES"
    )
    options = parser.parse_args()
    try:
        settings = read_settings(processes=options.workers)
    except InvalidSettings as error:
        sys.exit(str(error))
    log.configure(settings.log)
    serve(_create_app, settings)


def serve(make_app: Callable[[Settings], FastAPI], settings: Settings) -> None:
    """Serve the application until SIGTERM or SIGINT; what was accepted is answered first.

    `settings` and `make_app` are what this program gives again when it is started again with the same arguments: so are
    several processes made.
    """
    place = Place.of_this_process()
    if place is None and settings.http.processes > 1:
        from gateway.server.supervisor import Supervisor

        Supervisor(settings).run()
    # Here: the supervisor needs none of it.
    from gateway.key_file import InvalidKeyFile
    from gateway.server.serving import serve as serve_here

    try:
        serve_here(make_app, settings, place)
    except (InvalidSettings, InvalidKeyFile) as error:
        sys.exit(str(error))


def _create_app(settings: Settings) -> FastAPI:
    from gateway.app import create_app

    return create_app(settings)


if __name__ == "__main__":
    main()
