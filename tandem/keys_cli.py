"""`tandem keys`: who may use the gateway. It changes the file of keys; a running gateway notices by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer
from pydantic import ValidationError

from tandem import tables
from tandem.terminal import EXIT_FAILED, EXIT_USAGE, console, fail, settings_here

if TYPE_CHECKING:
    from gateway.key_file import Key, Right

keys = typer.Typer(no_args_is_help=True, help="The API keys of the gateway here: add, list, rotate, remove.")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, such as a customer or a service.")]
Rights = Annotated[str, typer.Option(help="One or more of predict, read, admin, with commas between them.")]
Rate = Annotated[
    str | None, typer.Option(metavar="N/UNIT", help="Most requests in a second, minute, hour or day: 100/minute.")
]
Expires = Annotated[
    str | None, typer.Option(metavar="TIME", help="How long it is valid: 90d, 12h. By default for ever.")
]
Grace = Annotated[str, typer.Option(metavar="TIME", help="How long the old key is valid yet: 7d, 1h, 0s.")]


@keys.command()
def add(name: Name, rights: Rights = "predict", rate: Rate = None, expires: Expires = None) -> None:
    """Make a key and print it: this once. The first one closes the gateway to everybody without a key."""
    now = datetime.now(UTC)
    with _changed() as (path, known):
        if any(each.name == name for each in known):
            fail(
                f"There is a key {name!r}. Replace it with `tandem keys rotate {name}`, or take another name.",
                EXIT_FAILED,
            )
        first = not path.exists()
        text = _made(known, name, rights.split(","), rate, now, None if expires is None else now + _time(expires))
    typer.echo(text)
    typer.echo(f"This is shown only now: {path} has its digest alone.", err=True)
    if first:
        typer.echo("From now on every request to the gateway needs a key.", err=True)


@keys.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """Every key, without its secret."""
    from gateway import key_file

    path = settings_here().keys_file
    with _file_says(path):
        found = key_file.read(path) if path.exists() else ()
    if as_json:
        for key in found:
            typer.echo(key.model_dump_json(exclude={"sha256"}))
    elif found:
        console().print(tables.keys_table([json.loads(key.model_dump_json()) for key in found], datetime.now(UTC)))
    else:
        typer.echo(
            f"There is no key in {path}." if path.exists() else f"There is no {path}: no key is needed.", err=True
        )


@keys.command()
def rotate(name: Name, grace: Grace = "7d") -> None:
    """Make a new key with the rights, rate and lifetime of the old one, and print it: this once."""
    now = datetime.now(UTC)
    until = now + _time(grace)
    with _changed() as (path, known):
        old = [each for each in known if each.name == name]
        if not old:
            _no_key(name, known)
        newest = max(old, key=lambda each: each.created)
        lifetime = None if newest.expires is None else newest.expires - newest.created
        for each in old:
            known.remove(each)
            end = until if each.expires is None else min(until, each.expires)
            if end > now:
                known.append(each.model_copy(update={"expires": end}))
        text = _made(known, name, newest.rights, newest.rate, now, None if lifetime is None else now + lifetime)
    typer.echo(text)
    typer.echo(f"This is shown only now: {path} has its digest alone.", err=True)
    typer.echo(
        f"The old one is valid until {tables.moment(until)}." if until > now else "The old one is void.", err=True
    )


@keys.command()
def remove(which: Annotated[str, typer.Argument(metavar="NAME|ID", help="All keys of that name, or one.")]) -> None:
    """Take a key away. The gateway stays closed, also without any."""
    with _changed() as (path, known):
        gone = [each for each in known if which in (each.name, each.id)]
        if not gone:
            _no_key(which, known)
        known[:] = [each for each in known if each not in gone]
        left = len(known)
    typer.echo(f"{which}: removed.")
    if not left:
        typer.echo(
            f"No key is left: only the admin key opens the gateway. To open it to all, remove {path} and restart.",
            err=True,
        )


def _made(
    known: list[Key],
    name: str,
    rights: Sequence[str] | frozenset[str],
    rate: str | None,
    now: datetime,
    expires: datetime | None,
) -> str:
    from gateway.key_file import new_key

    wanted = cast("frozenset[Right]", frozenset(each.strip() for each in rights))  # the key's own check tells
    try:
        text, key = new_key(name, wanted, rate=rate, created=now, expires=expires)
    except ValidationError as error:
        said = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())
        fail(f"{said}.", EXIT_USAGE)
    known.append(key)
    return text


def _no_key(name: str, known: Sequence[Key]) -> NoReturn:
    there = ", ".join(sorted({each.name for each in known})) or "none"
    fail(f"There is no key {name!r}. Known: {there}.", EXIT_FAILED)


def _time(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        fail(f"{text!r} is no length of time. Write a number and a unit: 90d, 12h, 30m or 0s.", EXIT_USAGE)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@contextmanager
def _changed() -> Iterator[tuple[Path, list[Key]]]:
    from gateway import key_file

    path = settings_here().keys_file
    with _file_says(path), key_file.changed(path) as known:
        yield path, known


@contextmanager
def _file_says(path: Path) -> Iterator[None]:
    from gateway.key_file import InvalidKeyFile

    try:
        yield
    except InvalidKeyFile as error:
        fail(str(error), EXIT_FAILED)
    except ValidationError as error:
        fail("; ".join(each["msg"] for each in error.errors()), EXIT_USAGE)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}. Whoever runs the gateway may.", EXIT_FAILED)
