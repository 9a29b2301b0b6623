"""The models in the store, and which version answers when a request names none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog

from gateway.errors import ModelNotFound
from modelkit import spec as model_spec
from modelkit.spec import ModelSpec

_log = structlog.get_logger(__name__)


class Catalogue:
    """Models by name and version. The default version is the greatest."""

    def __init__(self, specs: list[ModelSpec]) -> None:
        self._versions: dict[str, dict[int, ModelSpec]] = {}
        for spec in sorted(specs, key=lambda spec: (spec.name, spec.version)):
            self._versions.setdefault(spec.name, {})[spec.version] = spec

    @classmethod
    def read(cls, store: Path) -> Catalogue:
        """Every package of the store folder. One that cannot be read is left out, with a line in the log."""
        specs = []
        for path in sorted(store.glob("*/[0-9]*/model.yaml")):
            try:
                specs.append(model_spec.read(path.parent))
            except model_spec.InvalidPackage as error:
                _log.error("model_package_invalid", reason=str(error))
        return cls(specs)

    def find(self, name: str, version: int | None = None) -> ModelSpec:
        """The spec of a model's version, by default its default version. Raises ModelNotFound."""
        versions = self._versions.get(name)
        if versions is None:
            raise ModelNotFound(f"There is no model {name!r}. Known: {', '.join(self._versions) or 'none'}.")
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            known = ", ".join(map(str, versions))
            raise ModelNotFound(f"Model {name!r} has no version {version}. It has: {known}.")
        return versions[version]

    def versions(self, name: str) -> list[ModelSpec]:
        """Every version of a model, oldest first. Raises ModelNotFound."""
        self.find(name)
        return list(self._versions[name].values())

    def __iter__(self) -> Iterator[str]:
        """The names of the models."""
        return iter(self._versions)
