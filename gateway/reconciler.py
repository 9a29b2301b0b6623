"""Keeps the workers to what the store holds: versions that come are loaded, those that go are unloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.defaults import choose
from gateway.errors import RuntimeFault
from gateway.health import Health
from gateway.runtimes.base import ModelRef, ModelStatus, Runtime
from modelkit import lifecycle
from modelkit.spec import ModelSpec, RuntimeName
from modelkit.store import Version

_log = structlog.get_logger(__name__)

_LOAD_TIMEOUT_MS = 600_000
_UNLOAD_TIMEOUT_MS = 30_000
LONGEST_PAUSE_S = 60.0
"""Longest pause between two attempts of the same; the first is one second, each further one twice the last."""
OTHERS_NOTICE_S = 3.0
"""For how long other gateway processes may still begin requests for a version that has left the store."""


@dataclass
class _Attempts:
    """How often something was tried, and when it may be tried again."""

    count: int = 0
    again_at_s: float = 0.0

    def tried(self, now_s: float) -> None:
        self.again_at_s = now_s + min(2.0 ** min(self.count, 30), LONGEST_PAUSE_S)
        self.count += 1


class Reconciler:
    """One for each gateway process: they do the same without knowing of each other, and all of it may be done twice."""

    def __init__(
        self,
        catalogue: Catalogue,
        health: Health,
        runtimes: Mapping[RuntimeName, Runtime],
        *,
        store: Path,
        view: Path,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` and `view`: the folders of the model store and of the view of it that workers read.

        Store and workers are asked every `interval_s` seconds."""
        self._catalogue = catalogue
        self._health = health
        self._runtimes = runtimes
        self._store = store
        self._view = view
        self._interval_s = interval_s
        self._clock = clock
        self._loading = {name: asyncio.Lock() for name in runtimes}
        self._loads: dict[tuple[RuntimeName, ModelRef], _Attempts] = {}
        self._retired_since_s: dict[ModelRef, float] = {}
        self._unloads: dict[ModelRef, _Attempts] = {}
        self._followed: dict[tuple[RuntimeName, ModelRef], tuple[ModelSpec, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Follow the store and every version in it on every runtime, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self.finish_retirements))
            while True:
                await self._catalogue.refresh()
                self._follow_what_is_there(group)
                self.settle_defaults()
                await asyncio.sleep(self._interval_s)

    def _follow_what_is_there(self, group: asyncio.TaskGroup) -> None:
        for key, (spec, task) in list(self._followed.items()):
            if self._catalogue.specs.get(key[1]) is not spec:
                task.cancel()
                del self._followed[key]
                self._loads.pop(key, None)
                self._health.forget(*key)
        for model, spec in self._catalogue.specs.items():
            for runtime in self._runtimes.values():
                if (runtime.name, model) not in self._followed:
                    task = group.create_task(self._follow(runtime, spec))
                    self._followed[runtime.name, model] = (spec, task)

    async def _follow(self, runtime: Runtime, spec: ModelSpec) -> None:
        while True:
            await self.attend(runtime, spec)
            await asyncio.sleep(self._interval_s)

    async def attend(self, runtime: Runtime, spec: ModelSpec) -> None:
        """Bring the state of one version on one runtime up to date, and have it loaded where it is not."""
        status = await self._health.ask(runtime, spec)
        if status.state == "absent":
            await self._load(runtime, ModelRef.of(spec), status)
        else:
            self._loads.pop((runtime.name, ModelRef.of(spec)), None)
        self.settle_defaults()

    async def _load(self, runtime: Runtime, model: ModelRef, status: ModelStatus) -> None:
        attempts = self._loads.setdefault((runtime.name, model), _Attempts())
        if self._clock() < attempts.again_at_s:
            return
        if not attempts.count:
            self._health.set(runtime.name, model, ModelStatus("loading", status.reason))
        try:
            async with self._loading[runtime.name]:  # one at a time: a worker has requests to answer meanwhile
                await runtime.load(model, deadline=Deadline.after_ms(_LOAD_TIMEOUT_MS))
        except RuntimeFault as error:
            _log.warning("load_failed", runtime=runtime.name, model=str(model), reason=str(error))
            self._health.set(runtime.name, model, ModelStatus("failed", str(error)))
        finally:
            attempts.tried(self._clock())

    def settle_defaults(self) -> None:
        """Move each model's default where it is to go, as far as the runtimes are ready for it."""
        for name in self._catalogue:
            models = [ModelRef.of(spec) for spec in self._catalogue.versions(name)]
            version = choose(
                wanted=self._catalogue.wanted(name),
                settled=self._catalogue.settled(name),
                ready=[model.version for model in models if self._health.ready_everywhere(model)],
                loaded=[model.version for model in models if self._health.loaded_everywhere(model)],
            )
            if version is not None:
                self._catalogue.settle(name, version)

    async def finish_retirements(self) -> None:
        """Unload what has left the store, once its requests are answered.

        The note in the store outlives this process: whichever gateway runs next goes on with it.
        """
        retired = self._catalogue.retired
        for model in self._retired_since_s.keys() - set(retired):
            del self._retired_since_s[model]
            self._unloads.pop(model, None)
        for model in retired:
            since_s = self._retired_since_s.setdefault(model, self._clock())
            drained = not self._catalogue.in_use(model) and self._clock() - since_s >= OTHERS_NOTICE_S
            if drained and self._clock() >= self._unloads.setdefault(model, _Attempts()).again_at_s:
                await self._unload(model)

    async def _unload(self, model: ModelRef) -> None:
        gone = Version(model.name, model.version)
        try:
            # Out of the view first: a worker that starts again in between must not find it there.
            await asyncio.to_thread(lifecycle.clean_view, self._store, self._view, gone)
            for runtime in self._runtimes.values():
                await runtime.unload(model, deadline=Deadline.after_ms(_UNLOAD_TIMEOUT_MS))
            await asyncio.to_thread(lifecycle.forget, self._store, gone)
        except (RuntimeFault, OSError) as error:
            self._unloads[model].tried(self._clock())
            _log.warning("unload_failed", model=str(model), reason=str(error))
        else:
            _log.info("model_unloaded", model=str(model))

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:  # a fault of ours must not end the following
                _log.exception("reconciliation_failed")
            await asyncio.sleep(self._interval_s)
