"""`tandem models`: what is in the store, which version is the default, and taking models away.

Without --url it works on the local store, also while no gateway runs; with it, through the HTTP API of that gateway,
with the key in TANDEM_API_KEY or --key-file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from tandem import model_tables
from tandem.client import Client, Json, NotReachable, Refused
from tandem.keys import open_client
from tandem.terminal import EXIT_FAILED, EXIT_UNREACHABLE, Url, console, fail, settings_here

POLL_S = 0.5

models = typer.Typer(
    no_args_is_help=True, help="The models in the store: add, list, show, verify, default, scale, remove."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model.")]
AsJson = Annotated[bool, typer.Option("--json", help="The gateway's JSON.")]
Wait = Annotated[float, typer.Option("--wait-s", min=0, help="Longest wait for the gateway, in seconds; 0: none.")]


@models.command("list")
def list_(url: Url = None, as_json: AsJson = False) -> None:
    """Every version of every model, its state on each runtime, and what its proof is worth."""
    found = _all(url)
    if as_json:
        for model in found:
            typer.echo(json.dumps(model, ensure_ascii=False))
    elif found:
        console().print(model_tables.models_table(found))
    else:
        typer.echo("There is no model.", err=True)


@models.command()
def show(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """All that is known of one model: where it came from, its input, its artifacts and how they compared."""
    model = _one(url, name)
    if as_json:
        typer.echo(json.dumps(model, ensure_ascii=False))
        return
    for version in model["versions"]:
        console().print(model_tables.version_table(model, version))


@models.command()
def default(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="The version that is to answer.")],
    url: Url = None,
    wait_s: Wait = 120,
) -> None:
    """Have VERSION answer requests that name none, and wait until it does on both runtimes."""
    if url is None:
        settings = settings_here()
        with _store_says():
            from modelkit import lifecycle

            lifecycle.set_default(settings.store, name, version)
    else:
        with open_client(url) as client, gateway_says():
            client.set_default(name, version)
    with running(url) as client:
        if client is not None and wait_s:
            await_default(client, name, version, wait_s)
    typer.echo(f"{name} version {version} is the default.")


@models.command()
def remove(
    name: Name,
    version: Annotated[int | None, typer.Argument(min=1, metavar="[VERSION]", help="Only this version.")] = None,
    url: Url = None,
    wait_s: Wait = 30,
) -> None:
    """Take a model or one of its versions away. What requests are under way are answered; then workers unload it."""
    if url is None:
        gone = _remove_here(name, version)
    else:
        with open_client(url) as client, gateway_says():
            gone = client.remove(name, version)
    with running(url) as client:
        if client is not None and wait_s:
            _await(wait_s, lambda _last: _vanished(client.models(), name, gone))
    typer.echo(f"{name} version {', '.join(gone)}: removed.")


def _remove_here(name: str, version: int | None) -> list[str]:
    from modelkit import lifecycle
    from tandem.stack import is_running

    settings = settings_here()
    with running(None) as client:
        if client is not None and version is not None:
            _refuse_what_answers(client, name, version)
    with _store_says():
        if client is not None or is_running(settings):  # the gateway has the workers unload it, and clears the view
            gone = lifecycle.retire(settings.store, name, version)
        else:
            gone = lifecycle.remove(settings.store, settings.serving, name, version)
    return [str(each.number) for each in gone]


def _refuse_what_answers(client: Client, name: str, version: int) -> None:
    """The store knows which default is wanted; only the gateway knows which one still answers."""
    for model in client.models():
        several = len(model["proofs"]) > 1
        if several and (model["name"], model["default_version"]) == (name, str(version)):
            fail(f"{name} version {version} answers by default. Make another one the default first.", EXIT_FAILED)


def await_default(client: Client, name: str, version: int, wait_s: float) -> None:
    """Wait until `version` answers by default. Ends the command where it will not, or not in time."""
    _await(wait_s, lambda last: _moved(client, name, version, last))


def _moved(client: Client, name: str, version: int, last: bool) -> bool:
    """Whether the default is `version`, ready on both runtimes: the first version of a model answers by default before.

    Ends the command where it will not be, or with the `last` question is not.
    """
    try:
        model = client.model(name)
    except Refused as refused:
        if refused.problem.get("code") == "model_not_found" and not last:
            return False  # a new model, which the gateway has not noticed yet
        raise
    states = {
        runtime: each
        for runtime, versions in model["runtimes"].items()
        for each in versions
        if each["version"] == str(version)
    }
    missing = {runtime: each for runtime, each in states.items() if each["state"] != "ready"}
    if model["default_version"] == str(version) and states and not missing:
        return True
    if last or "failed" in {each["state"] for each in missing.values()}:
        why = "; ".join(f"{runtime}: {each['reason'] or each['state']}" for runtime, each in missing.items())
        default = model["default_version"]
        now = "" if default == str(version) else f"{name} version {default} answers by default now. "
        fail(
            f"{now}{name} version {version} takes over by itself once both runtimes are ready for it. Not ready: "
            + (why or "the gateway has not noticed yet"),
            EXIT_FAILED,
        )
    return False


def _vanished(models: list[Json], name: str, gone: list[str]) -> bool:
    return not any(model["name"] == name and set(gone) & set(model["proofs"]) for model in models)


def _await(wait_s: float, happened: Callable[[bool], bool]) -> None:
    """Ask until it has happened, for at most so long; `happened` is told which question is the last."""
    end_s = time.monotonic() + wait_s
    while True:
        last = time.monotonic() >= end_s
        with gateway_says():
            if happened(last):
                return
        if last:
            fail(f"The gateway has not noticed in {wait_s:g} s. Its log says why.", EXIT_FAILED)
        time.sleep(POLL_S)


def _all(url: str | None) -> list[Json]:
    """Every model: as the gateway says, or where none runs here, from the store."""
    with running(url) as client:
        if client is not None:
            with gateway_says():
                return client.models()
    from tandem.local_models import local_models

    problems: list[str] = []
    found = list(local_models(settings_here().store, problems))
    for problem in problems:
        typer.echo(f"left out: {problem}", err=True)
    return found


def _one(url: str | None, name: str) -> Json:
    with running(url) as client:
        if client is not None:
            with gateway_says():
                return client.model(name)
    found = {model["name"]: model for model in _all(url)}
    if name not in found:
        fail(f"There is no model {name!r}. Known: {', '.join(found) or 'none'}.", EXIT_FAILED)
    return found[name]


@contextmanager
def running(url: str | None) -> Iterator[Client | None]:
    """The gateway of that address; without one, the local stack's if it answers, else None."""
    with open_client(url) as client:
        if url is None and not client.answers():
            yield None
        else:
            yield client


@contextmanager
def gateway_says() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        keyless = refused.problem.get("code") == "unauthenticated"
        fail(
            f"{refused}{' The command line takes it from TANDEM_API_KEY or --key-file.' if keyless else ''}",
            EXIT_FAILED,
        )
    except NotReachable as error:
        fail(str(error), EXIT_UNREACHABLE)


@contextmanager
def _store_says() -> Iterator[None]:
    from modelkit.lifecycle import NoSuchVersion
    from modelkit.lifecycle import Refused as RefusedByStore

    try:
        yield
    except (NoSuchVersion, RefusedByStore) as error:
        fail(str(error), EXIT_FAILED)
    except OSError as error:
        fail(f"The store cannot be changed: {error}", EXIT_FAILED)
