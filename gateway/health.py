"""What state each model version is in on each runtime, as last asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

import structlog

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, RuntimeFault
from gateway.runtimes.base import ModelRef, ModelStatus, Runtime
from gateway.runtimes.warm_up import warm_up
from modelkit.spec import ModelSpec, RuntimeName

_log = structlog.get_logger(__name__)

_STATUS_TIMEOUT_MS = 2000
_WARM_REQUESTS = 50
_UNKNOWN = ModelStatus("unavailable", "Not asked yet.")

_Key = tuple[RuntimeName, ModelRef]


class Health:
    """The states. `ask` brings one up to date.

    A version that has become ready is warmed up before it is called ready: the way to a worker is slow at first, above
    all in TorchServe's JVM, and neither the first user nor the first comparison should pay for that.
    """

    def __init__(
        self,
        runtimes: Mapping[RuntimeName, Runtime],
        *,
        warm_up_requests: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtimes = runtimes
        self._warm_up_requests = warm_up_requests
        self._clock = clock
        self._status: dict[_Key, ModelStatus] = {}
        self._loaded: set[_Key] = set()
        self._warm: set[_Key] = set()
        self._answered: Counter[_Key] = Counter()

    def status(self, runtime: RuntimeName, model: ModelRef) -> ModelStatus:
        return self._status.get((runtime, model), _UNKNOWN)

    def able(self, runtime: RuntimeName, model: ModelRef) -> bool:
        """Whether it is ready, and a request to it would be tried."""
        return self.status(runtime, model).state == "ready" and self._runtimes[runtime].allows(model)

    @property
    def ready(self) -> bool:
        """Whether at least one runtime can answer for at least one model."""
        return any(status.state == "ready" for status in self._status.values())

    def ready_everywhere(self, model: ModelRef) -> bool:
        """Whether every runtime can answer for it, warmed up."""
        return all(self.status(runtime, model).state == "ready" for runtime in self._runtimes)

    def loaded_everywhere(self, model: ModelRef) -> bool:
        """Whether every runtime has it loaded, warmed up or not."""
        return all((runtime, model) in self._loaded for runtime in self._runtimes)

    def set(self, runtime: RuntimeName, model: ModelRef, status: ModelStatus) -> None:
        if self.status(runtime, model) != status:
            _log.info("model_status", runtime=runtime, model=str(model), state=status.state, reason=status.reason)
            if status.state == "ready":
                self._answered.pop((runtime, model), None)
        self._status[runtime, model] = status

    def cold(self, runtime: RuntimeName, model: ModelRef) -> bool:
        """Whether it has answered so few requests here since it became ready that its times say little."""
        return self._answered[runtime, model] < _WARM_REQUESTS

    def answered(self, runtime: RuntimeName, model: ModelRef) -> None:
        """It has answered one more request."""
        self._answered[runtime, model] += 1

    def forget(self, runtime: RuntimeName, model: ModelRef) -> None:
        """It is not asked about any more."""
        self._status.pop((runtime, model), None)
        self._loaded.discard((runtime, model))
        self._warm.discard((runtime, model))
        self._answered.pop((runtime, model), None)

    async def ask(self, runtime: Runtime, spec: ModelSpec) -> ModelStatus:
        """Ask `runtime` about `spec`, warm it up where it has become ready, and return its status.

        All but `absent` is kept as well: what becomes of a version that the worker does not have is not known here.
        """
        model = ModelRef.of(spec)
        key = (runtime.name, model)
        try:
            status = await runtime.status(model, deadline=Deadline.after_ms(_STATUS_TIMEOUT_MS))
            if status.state == "ready":
                self._loaded.add(key)
                if key not in self._warm:
                    await self._warm_up(runtime, spec)
            else:
                self._loaded.discard(key)
        except DeadlineExceeded:
            status = ModelStatus("unavailable", f"The {runtime.name} runtime did not answer in time.")
        except RuntimeFault as error:
            status = ModelStatus("unavailable", f"It failed while it was warmed up: {error}")
        except Exception as error:  # a fault of ours must not end the polling, nor hide behind an old status
            _log.exception("status_poll_failed", runtime=runtime.name, model=str(model))
            status = ModelStatus("unavailable", f"Its status could not be read: {error!r}")
        if status.state == "ready":
            self._warm.add(key)
        elif not status.hung:
            self._warm.discard(key)
        if status.state != "absent":
            self.set(*key, status)
        return status

    async def _warm_up(self, runtime: Runtime, spec: ModelSpec) -> None:
        """Raises RuntimeFault."""
        await warm_up(
            runtime,
            ModelRef.of(spec),
            height=spec.input.height,
            width=spec.input.width,
            requests=self._warm_up_requests,
            clock=self._clock,
        )
