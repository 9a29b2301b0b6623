"""`tandem models scale`: how many batches of a model a runtime computes at once, changed while it serves.

For another gateway than the local stack's, its admin key is needed in TANDEM_API_KEY or --key-file.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tandem.keys import open_client
from tandem.models_cli import Name, gateway_says, models
from tandem.terminal import Url


@models.command()
def scale(
    name: Name,
    runtime: Annotated[str, typer.Option(help="torch: the other one sets it at its start.")],
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Batches of it that each worker computes at once.")],
    url: Url = None,
) -> None:
    """Have a runtime compute more or fewer batches of NAME at once, until its worker starts anew."""
    with open_client(url) as client, gateway_says():
        answer = client.scale(name, runtime, replicas)
    typer.echo(f"{name} version {answer['version']} on {runtime}: {replicas} at once, {answer['holds']}.")
