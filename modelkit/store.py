"""What lies in a model store. Reads only; `lifecycle` changes it.

<store>/<name>/<version>/model.yaml     a package
<store>/<name>/default                  the number of the version that is to answer by default; without it the greatest
<store>/.retired/<ticket>/<name>/<version>/   what was taken out and may still be loaded by a worker
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from modelkit import spec as model_spec
from modelkit.spec import InvalidPackage, ModelSpec

RETIRED = ".retired"
_NUMBER = re.compile(r"[1-9][0-9]*")


class Version(NamedTuple):
    """A version of a model, by the names of its folders."""

    name: str
    number: int


def models(store: Path) -> dict[str, list[int]]:
    """The versions of each model that have a package, smallest first. Raises OSError if the store cannot be read."""
    found = {folder.name: numbers(folder) for folder in sorted(store.iterdir()) if not folder.name.startswith(".")}
    return {name: numbers for name, numbers in found.items() if numbers}


def numbers(model: Path) -> list[int]:
    """The versions in the folder of one model, smallest first; none where there is no such folder."""
    return sorted(int(path.parent.name) for path in model.glob("*/model.yaml") if _NUMBER.fullmatch(path.parent.name))


def read(package: Path) -> ModelSpec:
    """The spec of a package in its place in the store. Raises InvalidPackage, also where its place says otherwise."""
    found = model_spec.read(package)
    if (found.name, str(found.version)) != (package.parent.name, package.name):
        raise InvalidPackage(
            f"{package / 'model.yaml'} says that it is {found.name} version {found.version}; "
            "correct it, or move the package to where it belongs"
        )
    return found


def wanted_default(model: Path, numbers: Iterable[int]) -> int:
    """Which of `numbers`, at least one, is to answer by default: the one the file names, or the greatest."""
    known = set(numbers)
    with suppress(OSError, ValueError):
        if (named := int((model / "default").read_text())) in known:
            return named
    return max(known)


def retired(store: Path) -> dict[Version, Path]:
    """What was taken out of the store and may still be loaded by a worker, each with the folder that says so."""
    return {
        Version(path.parent.name, int(path.name)): path
        for path in sorted((store / RETIRED).glob("*/*/*"))
        if _NUMBER.fullmatch(path.name)
    }


def served(store: Path) -> dict[str, set[int]]:
    """What workers may have loaded: the versions in the store and those that were taken out, by model."""
    found = {name: set(numbers) for name, numbers in models(store).items()}
    for version in retired(store):
        found.setdefault(version.name, set()).add(version.number)
    return found
