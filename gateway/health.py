"""What state each model version is in on each runtime, kept fresh in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import numpy as np
import structlog

from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, RuntimeFault
from gateway.runtimes.base import ModelRef, ModelStatus, Runtime
from modelkit.spec import ModelSpec, RuntimeName

_log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0
_STATUS_TIMEOUT_MS = 2000
_UNKNOWN = ModelStatus("unavailable", "Not asked yet.")

_WARM_UP_AT_ONCE = 8
_WARM_UP_BUDGET_S = 3.0
_WARM_UP_TIMEOUT_MS = 30_000


class Health:
    """Asks every runtime about every model version, again and again, from `run`.

    A version that has become ready is warmed up before it is called ready: the way to a worker is slow at first, above
    all in TorchServe's JVM, and neither the first user nor the first comparison should pay for that.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        runtimes: Mapping[RuntimeName, Runtime],
        *,
        warm_up_requests: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._warm_up_requests = warm_up_requests
        self._clock = clock
        self._status: dict[tuple[RuntimeName, ModelRef], ModelStatus] = {}

    def status(self, runtime: RuntimeName, model: ModelRef) -> ModelStatus:
        return self._status.get((runtime, model), _UNKNOWN)

    @property
    def ready(self) -> bool:
        """Whether at least one runtime can answer for at least one model."""
        return any(status.state == "ready" for status in self._status.values())

    async def run(self) -> None:
        """Follow every version on every runtime, each by itself, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name in self._catalogue:
                for spec in self._catalogue.versions(name):
                    for runtime in self._runtimes.values():
                        group.create_task(self._follow(runtime, spec))

    async def _follow(self, runtime: Runtime, spec: ModelSpec) -> None:
        while True:
            await self.ask(runtime, spec)
            await asyncio.sleep(_INTERVAL_S)

    async def ask(self, runtime: Runtime, spec: ModelSpec) -> None:
        """Bring the status of one version on one runtime up to date."""
        model = ModelRef.of(spec)
        try:
            status = await runtime.status(model, deadline=Deadline.after_ms(_STATUS_TIMEOUT_MS))
            if status.state == "ready" and self.status(runtime.name, model).state != "ready":
                await self._warm_up(runtime, spec)
        except DeadlineExceeded:
            status = ModelStatus("unavailable", f"The {runtime.name} runtime did not answer in time.")
        except RuntimeFault as error:
            status = ModelStatus("unavailable", f"It failed while it was warmed up: {error}")
        except Exception as error:  # a fault of ours must not end the polling, nor hide behind an old status
            _log.exception("status_poll_failed", runtime=runtime.name, model=str(model))
            status = ModelStatus("unavailable", f"Its status could not be read: {error!r}")
        if self.status(runtime.name, model) != status:
            _log.info("model_status", runtime=runtime.name, model=str(model), state=status.state, reason=status.reason)
        self._status[runtime.name, model] = status

    async def _warm_up(self, runtime: Runtime, spec: ModelSpec) -> None:
        """Have it look at black pictures, so many or for so long. Raises RuntimeFault."""
        model = ModelRef.of(spec)
        black = np.zeros((1, spec.input.height, spec.input.width, 3), dtype=np.uint8)
        end_s = self._clock() + _WARM_UP_BUDGET_S
        left = self._warm_up_requests
        while left > 0 and self._clock() < end_s:
            at_once = min(left, _WARM_UP_AT_ONCE)
            deadline = Deadline.after_ms(_WARM_UP_TIMEOUT_MS)
            await asyncio.gather(*(runtime.infer(model, black, deadline=deadline) for _ in range(at_once)))
            left -= at_once
