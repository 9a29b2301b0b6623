"""The models of the local store as the gateway would show them, where none runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.http.model_answers import model_answer
from modelkit import store as stored
from modelkit.spec import InvalidPackage
from tandem.client import Json


def local_models(store: Path, problems: list[str]) -> Iterator[Json]:
    """Each model that has a package which can be read; why others cannot be read is added to `problems`."""
    for name, numbers in stored.models(store).items() if store.is_dir() else ():
        specs = []
        for number in numbers:
            try:
                specs.append(stored.read(store / name / str(number)))
            except InvalidPackage as error:
                problems.append(str(error))
        if specs:
            wanted = stored.wanted_default(store / name, [spec.version for spec in specs])
            yield model_answer(specs, default=wanted, wanted=wanted, states={}).model_dump(mode="json")
