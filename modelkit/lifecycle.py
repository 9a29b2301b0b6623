"""How models and versions come into the store, become the default, and go. One change at a time (`files.locked`).

A gateway follows the store, and workers read the serving view. So a package is in the view before it is in the store,
and has left the store before it leaves the view. Every change of the store is one rename: a process that dies, or a
disk that is full, leaves the store as it was, and what is left over beside it goes with the next change.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelkit import serving, spec
from modelkit import store as stored
from modelkit.exported import Say
from modelkit.files import locked, write_whole
from modelkit.spec import ModelSpec
from modelkit.store import RETIRED, Version

_STAGING = ".staging-"


class NoSuchVersion(Exception):
    """The store has no such model or version. The message says what it has."""


class Refused(Exception):
    """The change contradicts what is in the store. The message says what to do instead."""


@contextmanager
def staging(store: Path) -> Iterator[Path]:
    """An empty folder in the store, hidden from gateways, to make a package in for `publish`.

    It vanishes at the end of the block; what a process that died in it left is removed by the next.
    """
    with ExitStack() as held:
        with locked(store):
            for left_over in store.glob(f"{_STAGING}*"):
                with _hold(left_over) as free:
                    if free:
                        shutil.rmtree(left_over)
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(dir=store, prefix=_STAGING)))
            held.enter_context(_hold(folder))
        yield folder


def publish(package: Path, store: Path, view: Path, say: Say) -> ModelSpec:
    """Move the folder `package`, made on the file system of the store, into the store, once workers can read it.

    Raises Refused (that version is there, or has not left the workers yet), InvalidPackage, StepFailed or OSError:
    then store and view are as they were, and `package` is where it was.
    """
    made = spec.read(package)
    with locked(store):
        place = store / made.name / str(made.version)
        if place.exists():
            raise Refused(f"There is a {made.name} version {made.version} already. Give the new one another number.")
        if Version(made.name, made.version) in stored.retired(store):
            raise Refused(
                f"{made.name} version {made.version} was removed and is still being unloaded by the workers. "
                "Try again in a few seconds, or give the new one another number."
            )
        serving.clean(stored.served(store), view)
        try:
            serving.update_torch(made, package, view, say)
            serving.update_tf(made, package, view, say)
            serving.update_models_config(view)
            place.parent.mkdir(exist_ok=True)
            package.rename(place)
        except BaseException:
            serving.clean(stored.served(store), view)
            raise
    return made


def set_default(store: Path, name: str, version: int) -> None:
    """Have `version` answer requests that name none. A gateway goes there once both runtimes are ready.

    Raises NoSuchVersion.
    """
    with locked(store):
        _find(store, name, version)
        write_whole(store / name / "default", f"{version}\n")


def retire(store: Path, name: str, version: int | None = None) -> list[Version]:
    """Take one version, or all of a model, out of the store, and return what it was. Gateways stop serving it.

    Its artifacts are deleted. A note of it stays in the store until `forget`: workers may still have it loaded.
    Raises NoSuchVersion, and Refused for the default version while there are others.
    """
    with locked(store):
        numbers = _find(store, name, version)
        if version is not None and len(numbers) > 1:
            if version == stored.wanted_default(store / name, numbers):
                others = ", ".join(str(number) for number in numbers if number != version)
                raise Refused(
                    f"{name} version {version} is the default. Make another one the default first; there are: {others}."
                )
            numbers = [version]
        (store / RETIRED).mkdir(exist_ok=True)
        ticket = Path(tempfile.mkdtemp(dir=store / RETIRED))
        if version is None or [version] == stored.numbers(store / name):
            (store / name).rename(ticket / name)
        else:
            (ticket / name).mkdir()
            (store / name / str(version)).rename(ticket / name / str(version))
        gone = [Version(name, number) for number in numbers]
        for each in gone:
            for path in (ticket / name / str(each.number)).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return gone


def clean_view(store: Path, view: Path, *gone: Version) -> None:
    """Take out of the serving view what is not in the store: `gone`, and what was never meant to stay there.

    Other retired versions stay until their own turn: requests for them may still be under way.
    """
    with locked(store):
        kept = stored.served(store)
        in_store = stored.models(store)
        for version in gone:
            if version.number not in in_store.get(version.name, ()):
                kept.get(version.name, set()).discard(version.number)
        serving.clean({name: numbers for name, numbers in kept.items() if numbers}, view)


def forget(store: Path, version: Version) -> None:
    """Remove the note that workers may still have `version` loaded."""
    with locked(store):
        if (note := stored.retired(store).get(version)) is not None:
            shutil.rmtree(note)
        for ticket in (store / RETIRED).glob("*"):
            if not any(ticket.glob("*/[0-9]*")):
                shutil.rmtree(ticket)


def remove(store: Path, view: Path, name: str, version: int | None = None) -> list[Version]:
    """`retire` where no worker runs: nothing of it is left, neither in the store nor in the view."""
    gone = retire(store, name, version)
    clean_view(store, view, *gone)
    for each in gone:
        forget(store, each)
    return gone


def _find(store: Path, name: str, version: int | None) -> list[int]:
    """The versions of the model. Raises NoSuchVersion where there is none, or not that one."""
    models = stored.models(store) if store.is_dir() else {}
    if name not in models:
        raise NoSuchVersion(f"There is no model {name!r}. Known: {', '.join(models) or 'none'}.")
    if version is not None and version not in models[name]:
        known = ", ".join(map(str, models[name]))
        raise NoSuchVersion(f"Model {name!r} has no version {version}. It has: {known}.")
    return models[name]


@contextmanager
def _hold(folder: Path) -> Iterator[bool]:
    """Mark `folder` as in use by this process, or find (False) that another one uses it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
