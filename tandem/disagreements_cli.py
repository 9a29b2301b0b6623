"""`tandem disagreements`: pictures about which two answers differ, where the gateway keeps them.

For another gateway than the local stack's, its admin key is needed in TANDEM_API_KEY or --key-file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tandem import tables
from tandem.client import Client, Json, Refused
from tandem.keys import open_client
from tandem.models_cli import gateway_says
from tandem.terminal import EXIT_FAILED, EXIT_USAGE, Url, console, fail


def disagreements(
    url: Url = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most that are shown.")] = 20,
    draw: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write each picture twice, with each answer drawn, as a PNG to this folder."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List pictures about which two answers differ, newest first, and what each said. Needs the admin key."""
    if draw is not None:
        try:
            draw.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"{draw} cannot be made: {error.strerror}.", EXIT_USAGE)
    gone: list[str] = []
    with open_client(url) as client, gateway_says():
        found = client.disagreements(model, limit)
        if draw is not None:
            gone = [str(refused) for each in found if (refused := _draw(client, each, draw)) is not None]
    if as_json:
        for each in found:
            typer.echo(json.dumps(each, ensure_ascii=False))
    elif found:
        console().print(tables.disagreements_table(found))
    else:
        typer.echo(
            "None is kept. The gateway's TANDEM_DISAGREEMENTS__MAX_COUNT says how many are: by default none.", err=True
        )
    for problem in gone:
        typer.echo(problem, err=True)
    if gone:
        raise typer.Exit(EXIT_FAILED)


def _draw(client: Client, disagreement: Json, folder: Path) -> Refused | None:
    """Write the drawn picture into `folder`; the problem, if there was one: it may have gone since it was listed."""
    try:
        drawn = client.draw_disagreement(disagreement["id"])
    except Refused as refused:
        return refused
    path = folder / f"{disagreement['model']}-{disagreement['id']}.png"
    try:
        path.write_bytes(drawn)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}.", EXIT_USAGE)
    return None
