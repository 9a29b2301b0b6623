"""What the commands share: exit codes, the gateway they talk to, and how they speak."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from tandem.preflight import Problem

if TYPE_CHECKING:
    from gateway.settings import Settings

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 1, 2, 3

Url = Annotated[str | None, typer.Option(envvar="TANDEM_URL", help="The gateway; by default the local stack's.")]


def console() -> Console:
    """The standard output, for tables: as wide as they are where nobody looks at it."""
    return Console(width=None if sys.stdout.isatty() else 200)


def local_url() -> str:
    """The address of the local stack's gateway. Ends the command where the settings are not valid."""
    from tandem.stack import gateway_url

    return gateway_url(settings_here())


def settings_here() -> Settings:
    """The local stack's settings. Ends the command where they are not valid."""
    from tandem.stack import read_settings

    try:
        return read_settings()
    except Problem as problem:
        fail(str(problem), EXIT_USAGE)


def fail(message: str, code: int) -> NoReturn:
    """End the command with a sentence on the standard error."""
    print(message, file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)
