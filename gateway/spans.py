"""A request's trace as the rest of the gateway sees it. Only `gateway/tracing.py` knows OpenTelemetry.

Both variables are None where nothing is traced: then all that tracing costs is to look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from starlette.types import Scope

from gateway.runtimes.base import ModelRef
from gateway.stages import StageClock
from gateway.worker_times import WorkerTimes
from modelkit.spec import RuntimeName

Exemplar = dict[str, str]
"""What a histogram keeps of one observation, to find its trace again."""


class Call(Protocol):
    """The span of one gRPC call."""

    metadata: tuple[tuple[str, str], ...]
    """To send along, so that a worker that traces goes on with the same trace."""

    def end(self, code: int, failure: str | None) -> None:
        """With the gRPC status that it ended with, and that one's name where it is a failure."""
        ...


class Inference(Protocol):
    """The spans of one runtime's part of a request."""

    def begin_rpc(self) -> None:
        """The calls that follow belong to the stage `rpc`, which begins where the clock's last lap ended."""
        ...

    def call(self, method: str, address: str) -> Call:
        """`method`: the gRPC path, `/package.Service/Method`. `address`: host:port."""
        ...

    def end(self, outcome: str, worker: WorkerTimes) -> None:
        """`outcome`: `ok`, `cancelled`, or the code of the error."""
        ...


class Trace(Protocol):
    """The spans of one request."""

    ids: Mapping[str, str]
    """`trace_id` and `span_id`, for its log lines."""
    exemplar: Exemplar | None
    """None where the trace is not sampled: it would lead nowhere."""

    def inference(
        self, model: ModelRef, runtime: RuntimeName, role: str, *, images: int, clock: StageClock
    ) -> Inference: ...

    def end(self, scope: Scope, *, status: int, code: str, detail: str | None, facts: Mapping[str, Any]) -> None:
        """`status`: of the HTTP answer, 0 where none was sent. `code`: as an inference's outcome."""
        ...


class Tracer(Protocol):
    def begin(self, scope: Scope, request_id: str, clock: StageClock) -> Trace: ...

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocks."""
        ...


trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""That of the request which this code runs for."""
inference: ContextVar[Inference | None] = ContextVar("inference", default=None)
"""What a call to a runtime is part of."""


def exemplar() -> Exemplar | None:
    """That of the request which this code runs for."""
    current = trace.get()
    return None if current is None else current.exemplar
