"""The models being served: which versions, in which state, under which labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Lock
from typing import Any

from tf_worker import model_config
from tf_worker.errors import Code, ServingError
from tf_worker.servable import Servable

log = logging.getLogger(__name__)


class State(IntEnum):
    """`ModelVersionStatus.State`, by its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Version:
    """A version the server has been told of; it is remembered after its end, as the real server does."""

    state: State = State.START
    error: ServingError | None = None
    """Why it did not load; only in END."""
    servable: Servable | None = None
    in_use: int = 0
    """Requests that hold the servable."""


class Models:
    """Loads, looks up and unloads versions. Thread-safe.

    `load` is called with a name, a version and the version's folder, and raises ServingError. `on_ready` is called
    once: when the newest version of every model has loaded or failed; the older ones may still be loading.
    """

    def __init__(
        self,
        load: Callable[[str, int, Path], Servable],
        *,
        labels_before_versions: bool,
        on_ready: Callable[[], None],
    ) -> None:
        self._load = load
        self._labels_before_versions = labels_before_versions
        self._on_ready: Callable[[], None] | None = on_ready
        self._config: dict[str, Any] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._changing = Lock()
        """Held through a reload or a look at the file system, loads included."""
        self._using = Lock()
        """Held for an instant, by what looks up, counts or ends a use of a version."""

    def reload(self, config: Any) -> None:
        """Serve this ModelServerConfig in place of the present one, and retry what has failed.

        Raises ServingError: the configuration is not valid, and nothing has changed; or a model that is new in it
        did not become available, and everything else has.
        """
        with self._changing:
            model_config.validate(config)
            labels = self._new_labels(config)
            new = {model.name for model in config.model_config_list.config} - self._config.keys()
            self._config = {model.name: model for model in config.model_config_list.config}
            self._labels = labels
            self._reconcile(retry=True)
            if missing := [name for name in sorted(new) if not self._available(name)]:
                raise ServingError(
                    Code.UNKNOWN,
                    f"{len(missing)} model(s) did not become available: "
                    "{" + ", ".join(self._why_unavailable(name) for name in missing) + "}",
                )

    def follow_file_system(self) -> None:
        """Load the versions that have come into the base paths, newest first; then unload those that have gone."""
        with self._changing:
            self._reconcile(retry=False)

    def _reconcile(self, *, retry: bool) -> None:
        wanted = {name: found for name, model in self._config.items() if (found := self._look(name, model)) is not None}
        newest = [(name, max(found)) for name, found in wanted.items() if found]
        older = [(name, number) for name, found in wanted.items() for number in sorted(found, reverse=True)[1:]]
        rounds = [[item for item in each if self._is_to_load(*item, retry)] for each in (newest, older)]
        for name, number in [item for each in rounds for item in each]:
            self._versions[name] = {**self.versions(name), number: Version()}
        for each in rounds:
            for name, number in each:
                self._load_one(name, number, wanted[name][number])
            if self._on_ready:
                self._on_ready()
                self._on_ready = None
        self._unload_unwanted(wanted)

    @contextmanager
    def use(self, spec: Any) -> Iterator[tuple[int, Servable]]:
        """The version a ModelSpec names, kept loaded meanwhile. Raises ServingError."""
        with self._using:
            number, version, servable = self._find(spec)
            version.in_use += 1
        try:
            yield number, servable
        finally:
            with self._using:
                version.in_use -= 1
                last_of_unloading = version.state is State.UNLOADING and not version.in_use
            if last_of_unloading:
                self._close_if_unused(version)

    def versions(self, name: str) -> Mapping[int, Version]:
        """All versions of the model that the server knows or has known; empty if none."""
        return self._versions.get(name, {})

    def _find(self, spec: Any) -> tuple[int, Version, Servable]:
        if not spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        match spec.WhichOneof("version_choice"):
            case "version":
                number, request = spec.version.value, f"Specific({spec.name}, {spec.version.value})"
            case "version_label":
                label = self._labels.get(spec.name, {}).get(spec.version_label)
                if label is None:
                    raise ServingError(
                        Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
                    )
                number, request = label, f"Specific({spec.name}, {label})"
            case _:
                number, request = max(self._available(spec.name), default=-1), f"Latest({spec.name})"
        version = self.versions(spec.name).get(number)
        if version is None or version.state is not State.AVAILABLE or version.servable is None:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {request}")
        return number, version, version.servable

    def _available(self, name: str) -> list[int]:
        return [number for number, item in self.versions(name).items() if item.state is State.AVAILABLE]

    def _why_unavailable(self, name: str) -> str:
        failed = {number: item.error for number, item in self.versions(name).items() if item.error is not None}
        if not failed:
            return f"{{name: {name}: no version found}}"
        number = max(failed)
        error = failed[number]
        return f"{{name: {name} version: {number} due to error: {error.code.name}: {error.message}}}"

    def _new_labels(self, config: Any) -> dict[str, dict[str, int]]:
        labels = {model.name: dict(model.version_labels) for model in config.model_config_list.config}
        for name, versions in labels.items():
            for label, number in versions.items():
                unused = self._labels.get(name, {}).get(label, number) == number
                if number not in self._available(name) and not (self._labels_before_versions and unused):
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {name},"
                        " which is not currently available for inference",
                    )
        return labels

    def _look(self, name: str, model: Any) -> dict[int, Path] | None:
        """The wanted versions; None where the base path cannot be read, which must not unload what is there."""
        try:
            return model_config.versions_to_serve(model)
        except OSError as error:
            log.warning("Could not find base path %s for servable %s: %s", model.base_path, name, error.strerror)
            return None

    def _is_to_load(self, name: str, number: int, retry: bool) -> bool:
        version = self.versions(name).get(number)
        return version is None or (version.state is State.END and (retry or version.error is None))

    def _load_one(self, name: str, number: int, path: Path) -> None:
        version = self._versions[name][number]
        version.state = State.LOADING
        try:
            version.servable = self._load(name, number, path)
        except ServingError as error:
            log.error("version %d of model %s did not load: %s: %s", number, name, error.code.name, error.message)
            version.error = error
        except Exception as error:
            log.exception("version %d of model %s did not load", number, name)
            version.error = ServingError(Code.UNKNOWN, f"{type(error).__name__}: {error}")
        else:
            log.info("Successfully loaded servable version {name: %s version: %d}", name, number)
        version.state = State.END if version.error else State.AVAILABLE

    def _unload_unwanted(self, wanted: Mapping[str, Mapping[int, Path]]) -> None:
        for name, versions in self._versions.items():
            if name in self._config and name not in wanted:
                continue
            keep = wanted.get(name, {})
            if keep and not any(number in keep for number in self._available(name)):
                continue  # nothing wanted is there to take over
            for number in self._available(name):
                if number not in keep:
                    log.info("Unloading servable version {name: %s version: %d}", name, number)
                    with self._using:
                        versions[number].state = State.UNLOADING
                    self._close_if_unused(versions[number])

    def _close_if_unused(self, version: Version) -> None:
        with self._using:
            if version.state is not State.UNLOADING or version.in_use or version.servable is None:
                return
            servable, version.servable = version.servable, None
        servable.close()
        version.state = State.END
