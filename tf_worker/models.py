"""The models being served: which versions, in which state, under which labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Condition, Lock
from typing import Any

from tf_worker import model_config
from tf_worker.errors import Code, ServingError
from tf_worker.servable import Servable
from tf_worker.versions import State, Version, available, to_unload
from tf_worker.workers import Workers

log = logging.getLogger(__name__)

_NOT_SETTLED = (State.START, State.LOADING, State.UNLOADING)


class Models:
    """Loads, looks up and unloads versions. Thread-safe.

    `load` is called in a thread of `workers` with a name, a version and the version's folder, and raises
    ServingError; it is tried `load_retries` times more. `on_ready` is called once: when the newest version of every
    model has loaded or failed; the older ones may still be loading.
    """

    def __init__(
        self,
        load: Callable[[str, int, Path], Servable],
        workers: Workers,
        *,
        load_retries: int,
        labels_before_versions: bool,
        on_ready: Callable[[], None],
    ) -> None:
        self._load = load
        self._workers = workers
        self._load_retries = load_retries
        self._labels_before_versions = labels_before_versions
        self._on_ready: Callable[[], None] | None = on_ready
        self._first: set[Version] = set()
        """The newest versions of the first configuration that have not been tried yet."""
        self._config: dict[str, Any] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._wanted: dict[str, Mapping[int, Path]] = {}
        """The folders to serve, as last found."""
        self._versions: dict[str, dict[int, Version]] = {}
        self._reloading = Lock()
        """Held through a reload, its wait for new models included."""
        self._looking = Lock()
        """Held while configuration and file system become what is wanted; never during a load."""
        self._lock = Lock()
        """Held for an instant, by what reads or changes states."""
        self._changed = Condition(self._lock)

    def reload(self, config: Any) -> None:
        """Serve this ModelServerConfig in place of the present one.

        Returns when each model that is new in it has an available version, and what is not in use any more is gone.
        Raises ServingError: the configuration is not valid, and nothing has changed; or a model that is new in it
        did not become available, and everything else has.
        """
        with self._reloading:
            with self._looking:
                model_config.validate(config)
                labels = self._new_labels(config)
                new = {model.name for model in config.model_config_list.config} - self._config.keys()
                self._config = {model.name: model for model in config.model_config_list.config}
                self._labels = labels
                self._look()
            self._work()
            with self._changed:
                self._changed.wait_for(lambda: self._is_idle() and all(map(self._has_settled, new)))
                if missing := [name for name in sorted(new) if not available(self.versions(name))]:
                    raise ServingError(
                        Code.UNKNOWN,
                        f"{len(missing)} model(s) did not become available: "
                        "{" + ", ".join(self._why_unavailable(name) for name in missing) + "}",
                    )

    def follow_file_system(self) -> None:
        """Begin to load the versions that have come into the base paths, newest first, and to unload those gone."""
        with self._looking:
            self._look()
        self._work()

    @contextmanager
    def use(self, spec: Any) -> Iterator[tuple[int, Servable]]:
        """The version a ModelSpec names, kept loaded meanwhile. Raises ServingError."""
        with self._lock:
            number, version, servable = self._find(spec)
            version.in_use += 1
        try:
            yield number, servable
        finally:
            with self._lock:
                version.in_use -= 1
                last_of_unloading = version.state is State.UNLOADING and not version.in_use
            if last_of_unloading:
                self._workers.unload(partial(self._close, version))

    def versions(self, name: str) -> Mapping[int, Version]:
        """All versions of the model that the server knows or has known; empty if none."""
        return self._versions.get(name, {})

    def _look(self) -> None:
        """Find out which folders are wanted. What cannot be read keeps what it has."""
        wanted: dict[str, Mapping[int, Path]] = {}
        for name, model in self._config.items():
            try:
                wanted[name] = model_config.versions_to_serve(model)
            except OSError as error:
                log.warning("Could not find base path %s for servable %s: %s", model.base_path, name, error.strerror)
                wanted[name] = self._wanted.get(name, {})
        with self._lock:
            self._wanted = wanted

    def _work(self) -> None:
        """Begin what the wanted folders and the states of the versions ask for."""
        with self._lock:
            loads = self._versions_to_load()
            unloads = []
            for name, versions in self._versions.items():
                for number in to_unload(versions):
                    log.info("Unloading servable version {name: %s version: %d}", name, number)
                    versions[number].state = State.UNLOADING
                    if not versions[number].in_use:
                        unloads.append(versions[number])
            self._changed.notify_all()
        for version in unloads:
            self._workers.unload(partial(self._close, version))
        for name, number, version in loads:
            self._workers.load(partial(self._load_one, name, number, version, self._load_retries))
        self._tell_if_ready()

    def _versions_to_load(self) -> list[tuple[str, int, Version]]:
        """The versions that are new, the newest of each model first, and then model by model."""
        newest: list[tuple[str, int, Version]] = []
        older: list[tuple[str, int, Version]] = []
        for name in self._versions.keys() | self._wanted.keys():
            for number, version in self.versions(name).items():
                if number not in self._wanted.get(name, {}):
                    version.aspired = False
        for name, wanted in self._wanted.items():
            for number in sorted(wanted, reverse=True):
                known = self.versions(name).get(number)
                if known is not None and known.state not in (State.UNLOADING, State.END):
                    known.aspired = True
                elif known is None or (known.state is State.END and not known.aspired):
                    version = Version(wanted[number])
                    self._versions[name] = {**self.versions(name), number: version}
                    (newest if number == max(wanted) else older).append((name, number, version))
        if self._on_ready:
            self._first.update(version for _, _, version in newest)
        return newest + older

    def _load_one(self, name: str, number: int, version: Version, retries: int) -> None:
        with self._lock:
            if not version.aspired:
                if version.state is State.START:
                    self._end(version, ServingError(Code.CANCELLED, "Loading of servable cancelled"))
                return
            version.state, version.error = State.LOADING, None
        error: ServingError | None = None
        servable: Servable | None = None
        try:
            servable = self._load(name, number, version.path)
        except ServingError as reason:
            log.error("version %d of model %s did not load: %s: %s", number, name, reason.code.name, reason.message)
            error = reason
        except Exception as reason:
            log.exception("version %d of model %s did not load", number, name)
            error = ServingError(Code.UNKNOWN, f"{type(reason).__name__}: {reason}")
        with self._lock:
            if servable is not None and version.aspired:
                log.info("Successfully loaded servable version {name: %s version: %d}", name, number)
                version.servable, version.state, servable = servable, State.AVAILABLE, None
                self._first.discard(version)
                self._changed.notify_all()
            else:
                self._end(version, error or ServingError(Code.CANCELLED, "Loading of servable cancelled"))
            again = bool(error and retries and version.aspired)
        if servable is not None:
            servable.close()
        if again:
            self._workers.load_later(partial(self._load_one, name, number, version, retries - 1))
        self._work()

    def _close(self, version: Version) -> None:
        servable, version.servable = version.servable, None
        try:
            if servable is not None:
                servable.close()
        except Exception:
            log.exception("%s did not unload cleanly", version.path)
        with self._lock:
            self._end(version, None)
        self._work()

    def _end(self, version: Version, error: ServingError | None) -> None:
        version.error, version.state = error, State.END
        self._first.discard(version)
        self._changed.notify_all()

    def _tell_if_ready(self) -> None:
        with self._lock:
            tell = None if self._first else self._on_ready
            if tell:
                self._on_ready = None
        if tell:
            self._workers.started()
            tell()

    def _is_idle(self) -> bool:
        """Whether nothing is being unloaded but what requests still use."""
        return not any(
            version.state is State.UNLOADING and not version.in_use
            for versions in self._versions.values()
            for version in versions.values()
        )

    def _has_settled(self, name: str) -> bool:
        versions = self.versions(name)
        return bool(available(versions)) or not any(item.state in _NOT_SETTLED for item in versions.values())

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
                number, request = max(available(self.versions(spec.name)), default=-1), f"Latest({spec.name})"
        version = self.versions(spec.name).get(number)
        if version is None or version.state is not State.AVAILABLE or version.servable is None:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {request}")
        return number, version, version.servable

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
                if number not in available(self.versions(name)) and not (self._labels_before_versions and unused):
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {name},"
                        " which is not currently available for inference",
                    )
        return labels
