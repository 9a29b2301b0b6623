"""What the model store held at one moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from gateway.runtimes.base import ModelRef
from modelkit import store as stored
from modelkit.spec import InvalidPackage, ModelSpec

_log = structlog.get_logger(__name__)

_Revision = tuple[int, int, int]
"""What tells one state of a file from another: inode, time of change in nanoseconds, size."""


@dataclass(frozen=True)
class Snapshot:
    specs: Mapping[ModelRef, ModelSpec] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    """The default version that the store asks for, by model."""
    retired: Collection[ModelRef] = ()
    """What was removed, and what workers may still have loaded."""
    read: Mapping[Path, tuple[_Revision, ModelSpec | None]] = field(default_factory=dict)
    """Each model.yaml as it was read, None where it is not valid: only what changed is read again."""

    @classmethod
    def of(cls, specs: Iterable[ModelSpec]) -> Snapshot:
        """As if the store held these, and named no default."""
        known = {ModelRef.of(spec): spec for spec in sorted(specs, key=lambda spec: (spec.name, spec.version))}
        return cls(known, {ref.name: ref.version for ref in known})

    def next(self, store: Path) -> Snapshot:
        """What the store holds now. Raises OSError if it cannot be read. Blocks; one line in the log for each package
        that cannot be read, when it comes or changes."""
        read: dict[Path, tuple[_Revision, ModelSpec | None]] = {}
        specs: dict[ModelRef, ModelSpec] = {}
        wanted: dict[str, int] = {}
        for name, numbers in stored.models(store).items():
            for number in numbers:
                package = store / name / str(number)
                if (revision := _revision(package / "model.yaml")) is None:
                    continue  # it has just gone
                known = self.read.get(package)
                read[package] = known if known and known[0] == revision else (revision, _read(package))
                if (spec := read[package][1]) is not None:
                    specs[ModelRef.of(spec)] = spec
            if valid := [ref.version for ref in specs if ref.name == name]:
                wanted[name] = stored.wanted_default(store / name, valid)
        return Snapshot(specs, wanted, [ModelRef(*version) for version in stored.retired(store)], read)


def _read(package: Path) -> ModelSpec | None:
    try:
        return stored.read(package)
    except (InvalidPackage, OSError) as error:
        _log.error("model_package_invalid", reason=str(error))
        return None


def _revision(path: Path) -> _Revision | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
