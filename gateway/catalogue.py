"""The models in the store, followed while they come and go, and which version answers when a request names none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from gateway.errors import ModelNotFound
from gateway.runtimes.base import ModelRef
from gateway.snapshot import Snapshot
from modelkit.spec import ModelSpec

_log = structlog.get_logger(__name__)

_MAX_WORD = 100
"""Letters that are said again of what the caller wrote."""


class Catalogue:
    """Models by name and version.

    The *wanted* default of a model is what the store asks for; its *effective* default answers, and follows when
    `settle` says so. A version that the store does not hold any more is not found from the next `refresh` on.
    """

    def __init__(self, store: Path, snapshot: Snapshot | None = None) -> None:
        """With a `snapshot` for a start, else what the store holds now."""
        self._store = store
        self._settled: dict[str, int] = {}
        self._in_use: Counter[ModelRef] = Counter()
        self._unreadable = False
        self._now = Snapshot() if snapshot is None else snapshot
        if snapshot is None:
            self._take(self._look())

    async def refresh(self) -> None:
        """Take over what the store holds now. Where it cannot be read at all, what it held stays."""
        self._take(await asyncio.to_thread(self._look))

    def find(self, name: str, version: int | None = None) -> ModelSpec:
        """The spec of a model's version, by default its effective default version. Raises ModelNotFound."""
        versions = {spec.version: spec for spec in self.versions(name)}
        if version is None:
            version = self.default(name)
        if version not in versions:
            known = ", ".join(map(str, versions))
            raise ModelNotFound(f"Model {name!r} has no version {version}. It has: {known}.")
        return versions[version]

    def versions(self, name: str) -> list[ModelSpec]:
        """Every version of a model, oldest first. Raises ModelNotFound."""
        if name not in self._now.wanted:
            raise ModelNotFound(f"There is no model {name[:_MAX_WORD]!r}. Known: {', '.join(self) or 'none'}.")
        return [spec for spec in self._now.specs.values() if spec.name == name]

    def __iter__(self) -> Iterator[str]:
        """The names of the models."""
        return iter(self._now.wanted)

    def default(self, name: str) -> int:
        """The version of a known model that answers requests which name none."""
        return self._settled.get(name, self._now.wanted[name])

    def wanted(self, name: str) -> int:
        """The version that the store asks for as the default of a known model."""
        return self._now.wanted[name]

    def settled(self, name: str) -> int | None:
        """The effective default of a known model if it was ever chosen, not only taken from the store."""
        return self._settled.get(name)

    def settle(self, name: str, version: int) -> None:
        """Make `version` the effective default."""
        if self._settled.get(name) != version:
            _log.info("default_version", model=name, version=version, before=self._settled.get(name))
        self._settled[name] = version

    @property
    def specs(self) -> Mapping[ModelRef, ModelSpec]:
        return self._now.specs

    @property
    def retired(self) -> Collection[ModelRef]:
        """What was removed, and what workers may still have loaded."""
        return self._now.retired

    @contextmanager
    def using(self, spec: ModelSpec) -> Iterator[None]:
        """A request for `spec` is under way in this block."""
        model = ModelRef.of(spec)
        self._in_use[model] += 1
        try:
            yield
        finally:
            self._in_use[model] -= 1

    def in_use(self, model: ModelRef) -> bool:
        """Whether a request for it is under way in this process."""
        return self._in_use[model] > 0

    def _look(self) -> Snapshot:
        try:
            snapshot = self._now.next(self._store)
        except OSError as error:
            if not self._unreadable:
                _log.error("store_unreadable", reason=str(error))
            self._unreadable = True
            return self._now
        self._unreadable = False
        return snapshot

    def _take(self, snapshot: Snapshot) -> None:
        for model in snapshot.specs.keys() - self._now.specs.keys():
            _log.info("model_appeared", model=str(model))
        for model in self._now.specs.keys() - snapshot.specs.keys():
            _log.info("model_vanished", model=str(model))
            if self._settled.get(model.name) == model.version:
                del self._settled[model.name]
        self._now = snapshot
