"""What state each model version is in on each runtime, kept fresh in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded
from gateway.runtimes.base import ModelRef, ModelStatus, Runtime
from modelkit.spec import RuntimeName

_log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0
_POLL_TIMEOUT_MS = 2000
_UNKNOWN = ModelStatus("unavailable", "Not asked yet.")


class Health:
    """Asks every runtime about every model version, again and again, from `run`."""

    def __init__(self, catalogue: Catalogue, runtimes: Mapping[RuntimeName, Runtime]) -> None:
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._status: dict[tuple[RuntimeName, ModelRef], ModelStatus] = {}

    def status(self, runtime: RuntimeName, model: ModelRef) -> ModelStatus:
        return self._status.get((runtime, model), _UNKNOWN)

    @property
    def ready(self) -> bool:
        """Whether at least one runtime can answer for at least one model."""
        return any(status.state == "ready" for status in self._status.values())

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(_INTERVAL_S)

    async def poll(self) -> None:
        """Ask once, all side by side."""
        refs = [ModelRef(name, spec.version) for name in self._catalogue for spec in self._catalogue.versions(name)]
        await asyncio.gather(*(self._ask(runtime, ref) for runtime in self._runtimes.values() for ref in refs))

    async def _ask(self, runtime: Runtime, model: ModelRef) -> None:
        try:
            status = await runtime.status(model, deadline=Deadline.after_ms(_POLL_TIMEOUT_MS))
        except DeadlineExceeded:
            status = ModelStatus("unavailable", f"The {runtime.name} runtime did not answer in {_POLL_TIMEOUT_MS} ms.")
        except Exception as error:  # a fault of ours must not end the polling, nor hide behind an old status
            _log.exception("status_poll_failed", runtime=runtime.name, model=str(model))
            status = ModelStatus("unavailable", f"Its status could not be read: {error!r}")
        key = (runtime.name, model)
        if self._status.get(key) != status:
            _log.info("model_status", runtime=runtime.name, model=str(model), state=status.state, reason=status.reason)
        self._status[key] = status
