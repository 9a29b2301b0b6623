"""`tandem routing`: which target answers a model's requests, and which one shadows it.

For another gateway than the local stack's, changes need its admin key in TANDEM_ADMIN_KEY.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from tandem.client import Client, Json
from tandem.keys import admin_key
from tandem.models_cli import AsJson, Name, gateway_says
from tandem.terminal import EXIT_USAGE, Url, fail, local_url

routing = typer.Typer(no_args_is_help=True, help="How a model's requests are spread over targets: show, set.")

Rate = Annotated[float | None, typer.Option("--rate", help="shadow: share of the requests that are shadowed, 0 to 1.")]


@routing.command()
def show(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """The policy that is in force."""
    with Client(url or local_url()) as client, gateway_says():
        _print(client.routing(name), as_json)


@routing.command("set")
def set_(
    name: Name,
    policy: Annotated[list[str], typer.Argument(metavar="POLICY...", help="As in the examples.")],
    rate: Rate = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put a policy in force. A target is torch or tf, or either with a version: torch@2.

    tandem routing set digits torch

    tandem routing set digits weighted torch=0.9 tf@2=0.1

    tandem routing set digits shadow torch tf --rate 0.5
    """
    kind, arguments = (policy[0], policy[1:]) if policy[0] in _POLICIES else ("fixed", policy)
    if rate is not None and kind != "shadow":
        fail("--rate is the share of requests that are shadowed: give it with `shadow PRIMARY SHADOW`.", EXIT_USAGE)
    wanted = {"policy": kind} | _POLICIES[kind](arguments) | ({} if rate is None else {"sample_rate": rate})
    with Client(url or local_url(), admin_key(url)) as client, gateway_says():
        _print(client.set_routing(name, wanted), as_json)


def _fixed(arguments: Sequence[str]) -> Json:
    if len(arguments) != 1:
        fail("Name one target, `weighted TARGET=WEIGHT …`, or `shadow PRIMARY SHADOW`.", EXIT_USAGE)
    return {"target": arguments[0]}


def _weighted(arguments: Sequence[str]) -> Json:
    weights: dict[str, float] = {}
    for argument in arguments:
        target, _, weight = argument.partition("=")
        try:
            given = float(weight)
        except ValueError:
            fail(f"{argument!r} is no weight: write TARGET=WEIGHT, such as torch=0.9.", EXIT_USAGE)
        if target in weights:
            fail(f"{target} has two weights. Give it one.", EXIT_USAGE)
        weights[target] = given
    return {"weights": weights}


def _shadow(arguments: Sequence[str]) -> Json:
    if len(arguments) != 2:
        fail("Name two targets: `shadow PRIMARY SHADOW`, such as `shadow torch tf`.", EXIT_USAGE)
    return {"primary": arguments[0], "shadow": arguments[1]}


_POLICIES: dict[str, Callable[[Sequence[str]], Json]] = {"fixed": _fixed, "weighted": _weighted, "shadow": _shadow}


def _print(answer: Json, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    set_at = (
        f"set {answer['updated']}, revision {answer['revision']}" if answer["updated"] else "never set: the default"
    )
    typer.echo(f"{answer['model']}: {_sentence(answer)} ({set_at})")
    if answer["missing"]:
        gone = ", ".join(answer["missing"])
        typer.echo(f"Not there any more: {gone}. The default version answers instead, and shadows nothing.", err=True)


def _sentence(answer: Json) -> str:
    if answer["policy"] == "weighted":
        return "weighted, " + ", ".join(f"{target}={weight:g}" for target, weight in answer["weights"].items())
    if answer["policy"] == "shadow":
        rate = f"{answer['sample_rate']:.4g} of the requests"
        return f"{answer['primary']} answers, {answer['shadow']} shadows {rate}"
    return f"{answer['target']} answers"
