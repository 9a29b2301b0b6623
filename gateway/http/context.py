"""What is known of one HTTP request while it runs, and what every answer carries: ids, timing, one log line."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import spans
from gateway.http.security import SecurityHeaders
from gateway.sampling import Sampling
from gateway.spans import Tracer
from gateway.stages import STAGES, StageClock
from gateway.worker_times import UNKNOWN, WorkerTimes

if TYPE_CHECKING:
    from gateway.router import Plan

_log = structlog.get_logger("gateway.request")

# A client's own id is taken over when it cannot break a header, a log line or a database column.
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass
class RequestContext:
    request_id: str
    time: float = field(default_factory=time.time)
    """Unix time at which it arrived."""
    clock: StageClock = field(default_factory=StageClock)
    worker: WorkerTimes = UNKNOWN
    """What the worker that answered says of its part."""
    code: str = "ok"
    """How it ended: `ok`, `cancelled`, or the code of the error."""
    detail: str | None = None
    cause: str | None = None
    """What lay under the error: for the log, never for the client."""
    facts: MutableMapping[str, Any] = field(default_factory=dict)
    """More for the log line: model, version, runtime."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """More for the answer, whatever it is."""
    plan: Plan | None = None
    """Who answers, where that is known already, and that there is room."""

    def server_timing(self) -> str:
        """The `Server-Timing` header (W3C Server Timing): milliseconds of each stage, of the worker's part of
        `rpc` where it is known, and of all until now."""
        stages = [
            f"{stage};dur={self.clock.seconds[stage] * 1000:.3f}" for stage in STAGES if stage in self.clock.seconds
        ]
        worker = [f"worker-{part};dur={value:.3f}" for part, value in self.worker.ms().items()]
        return ", ".join([*stages, *worker, f"total;dur={self.clock.elapsed_s() * 1000:.3f}"])


def context_of(request: Request) -> RequestContext:
    context: RequestContext = request.state.context
    return context


class RequestContextMiddleware:
    """Gives each request an id and a clock, adds both to the answer, and writes one line to the log at its end.

    It stands outside everything else, so that no answer lacks its headers and no fault goes unlogged.
    """

    def __init__(
        self,
        app: ASGIApp,
        internal_error: Callable[[RequestContext], Response],
        tracer: Tracer | None = None,
        *,
        refuse: Callable[[Scope, RequestContext], Response | None] = lambda _, __: None,
        tls: bool = False,
    ) -> None:
        """`refuse`: asked first; what it answers is all that is done."""
        self._app = app
        self._refuse = refuse
        self._refusals = Sampling(_REFUSALS_PER_S)
        self._internal_error = internal_error
        self._tracer = tracer
        self._security = SecurityHeaders(tls=tls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(_request_id(scope))
        scope.setdefault("state", {})["context"] = context
        security = self._security.of(scope["path"])
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", context.request_id.encode()),
                    (b"server-timing", context.server_timing().encode()),
                    *context.headers,
                    *security,
                ]
            await send(message)

        trace = None
        if self._tracer is not None and scope["path"] not in _QUIET_PATHS:
            trace = self._tracer.begin(scope, context.request_id, context.clock)
            spans.trace.set(trace)
        ids = {"request_id": context.request_id, **({} if trace is None else trace.ids)}
        refused = None
        try:
            refused = self._refuse(scope, context)
            if refused is None:
                with structlog.contextvars.bound_contextvars(**ids):
                    await self._app(scope, receive, send_with_headers)
            else:
                await refused(scope, receive, send_with_headers)
        except (ClientDisconnect, asyncio.CancelledError):  # the latter when the gateway stops, which has answered
            context.code = "cancelled"
        except Exception:
            _log.exception("internal_error", path=scope["path"], **ids)
            if status:  # half an answer is out: only closing the connection is left to say that it is broken
                raise
            await self._internal_error(context)(scope, receive, send_with_headers)
        finally:
            left_out = 0 if refused is None else self._refusals.left_out()
            if left_out is not None:
                _write_line(context, scope, status, ids, left_out)
            if trace is not None:
                trace.end(scope, status=status, code=context.code, detail=context.detail, facts=context.facts)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            if _VALID_REQUEST_ID.fullmatch(given):
                return given
    return uuid.uuid4().hex


_REFUSALS_PER_S = 10
"""Of requests that are refused at once, so many lines a second are written: a flood of them is for the metrics."""
_QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})


def _write_line(context: RequestContext, scope: Scope, status: int, ids: Mapping[str, str], left_out: int) -> None:
    level = "debug" if scope["path"] in _QUIET_PATHS else "error" if status >= 500 else "info"
    getattr(_log, level)(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        outcome=context.code,
        detail=context.detail,
        cause=context.cause,
        duration_ms=round(context.clock.elapsed_s() * 1000, 3),
        stages_ms={stage: round(seconds * 1000, 3) for stage, seconds in context.clock.seconds.items()},
        worker_ms=context.worker.ms(),
        **context.facts,
        **({"left_out": left_out} if left_out else {}),
        **ids,
    )
