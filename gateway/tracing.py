"""Requests as OpenTelemetry traces, sent by OTLP over gRPC. `docs/tracing.md` describes the spans.

Imported only where tracing is on. Spans are sent in batches by a thread of the library's; what a slow collector leaves
no room for is dropped, and the log says so.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_span_id, format_trace_id, set_span_in_context
from opentelemetry.trace import Tracer as OtelTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from gateway.runtimes.base import ModelRef
from gateway.settings import TracingSettings
from gateway.spans import Call, Exemplar, Inference, Trace
from gateway.stages import STAGES, Stage, StageClock
from gateway.worker_times import WorkerTimes
from modelkit.spec import RuntimeName

_log = structlog.get_logger(__name__)

_EXPORT_TIMEOUT_S = 5.0
_FLUSH_S = 3.0
_OF_RUNTIME: frozenset[Stage] = frozenset({"queue", "rpc", "postprocess"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"})
_PROPAGATOR = TraceContextTextMapPropagator()

_Attributes = dict[str, AttributeValue]


class Tracing:
    """Makes the traces of requests, and sends them."""

    def __init__(self, settings: TracingSettings, *, version: str) -> None:
        # Each attempt to reach a collector that is away, and what is wrong with clients' headers, would fill the log:
        # that spans were not sent, or were dropped, is still said.
        for name in ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.trace"):
            logging.getLogger(name).setLevel(logging.ERROR)
        resource = {
            "service.name": "tandem-gateway",
            "service.version": version,
            "service.instance.id": uuid.uuid4().hex,
        }
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource.create(resource),
            shutdown_on_exit=False,
            # A client chooses the path: what is kept of it until it is sent has a bound.
            span_limits=SpanLimits(max_span_attribute_length=256),
        )
        self._exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("gateway", version)

    def begin(self, scope: Scope, request_id: str, clock: StageClock) -> Trace:
        return RequestTrace(self._tracer, scope, request_id, clock)

    def close(self) -> None:
        # The processor waits half a minute for a collector that hangs; with a closed exporter it gives up at once.
        patience = threading.Timer(_FLUSH_S, self._give_up)
        patience.start()
        self._provider.shutdown()
        patience.cancel()

    def _give_up(self) -> None:
        _log.warning("traces_lost", detail=f"The collector did not take the last spans in {_FLUSH_S:.0f} s.")
        self._exporter.shutdown()


class RequestTrace:
    def __init__(self, tracer: OtelTracer, scope: Scope, request_id: str, clock: StageClock) -> None:
        self._tracer = tracer
        self._clock = clock
        # One offset for all spans of the trace, whatever the wall clock does meanwhile.
        self._offset_ns = time.time_ns() - int(clock.now_s() * 1e9)
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        self._name = "HTTP" if method == "_OTHER" else method
        self._span = tracer.start_span(
            self._name,
            _parent(scope),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "url.scheme": scope["scheme"],
                "url.path": scope["path"],
                "network.protocol.version": scope["http_version"],
                "tandem.request_id": request_id,
            },
            start_time=self.ns(clock.start_s),
        )
        self.inside = set_span_in_context(self._span, Context())
        ids = self._span.get_span_context()
        trace_id = format_trace_id(ids.trace_id)
        self.ids: Mapping[str, str] = {"trace_id": trace_id, "span_id": format_span_id(ids.span_id)}
        self.sampled = ids.trace_flags.sampled
        self.exemplar: Exemplar | None = {"trace_id": trace_id} if self.sampled else None

    def inference(
        self, model: ModelRef, runtime: RuntimeName, role: str, *, images: int, clock: StageClock
    ) -> Inference:
        return InferenceTrace(self, model, runtime, role, images=images, clock=clock)

    def end(self, scope: Scope, *, status: int, code: str, detail: str | None, facts: Mapping[str, Any]) -> None:
        span = self._span
        if self.sampled:
            _stages(self._clock, frozenset(STAGES) - _OF_RUNTIME, code, self._stage)
            if route := getattr(scope.get("route"), "path", None):
                span.update_name(f"{self._name} {route}")
                span.set_attribute("http.route", route)
            span.set_attributes({f"tandem.{name}": value for name, value in facts.items()})
            span.set_attribute("tandem.outcome", code)
            if status:
                span.set_attribute("http.response.status_code", status)
            if status >= 500:  # what a client did wrong is no error of a server's span
                _fail(span, code, detail)
        span.end(self.ns(self._clock.now_s()))

    def describe(self, attributes: _Attributes) -> None:
        self._span.set_attributes(attributes)

    def start(
        self, name: str, inside: Context, start_s: float, attributes: _Attributes, kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        return self._tracer.start_span(name, inside, kind, attributes, start_time=self.ns(start_s))

    def ns(self, at_s: float) -> int:
        """Unix time of a moment on the clock, in nanoseconds."""
        return self._offset_ns + int(at_s * 1e9)

    def _stage(self, stage: Stage, start_s: float, end_s: float, outcome: str) -> None:
        span = self.start(stage, self.inside, start_s, {})
        _fail(span, outcome)
        span.end(self.ns(end_s))


class InferenceTrace:
    """The stages `queue`, `rpc` and `postprocess`: inside the request's span, or, where more than one runtime is asked,
    inside a span of the runtime's, which tells how that one's part ended. A shadow's may outlast the request's."""

    def __init__(
        self, request: RequestTrace, model: ModelRef, runtime: RuntimeName, role: str, *, images: int, clock: StageClock
    ) -> None:
        shared: _Attributes = {
            "tandem.model": model.name,
            "tandem.version": model.version,
            "tandem.role": role,
            "tandem.images": images,
        }
        self._request = request
        self._clock = clock
        self._attributes: _Attributes = shared | {"tandem.runtime": runtime}
        self._span: Span | None = None
        self._rpc: Span | None = None
        self._inside = request.inside
        if role == "primary":
            request.describe(self._attributes)
        else:
            if role == "compare":  # a shadow is no part of what the request was for
                request.describe(shared)
            self._span = request.start(runtime, request.inside, clock.last_s, self._attributes)
            self._inside = set_span_in_context(self._span, Context())

    def begin_rpc(self) -> None:
        self._rpc = self._request.start("rpc", self._inside, self._clock.last_s, self._attributes)

    def call(self, method: str, address: str) -> Call:
        inside = self._inside if self._rpc is None else set_span_in_context(self._rpc, Context())
        return CallTrace(self._request, self._clock, inside, method, address, self._attributes | {"tandem.images": 1})

    def end(self, outcome: str, worker: WorkerTimes) -> None:
        if not self._request.sampled:
            return
        if self._rpc is not None:  # before its end: it takes no attributes after that
            self._rpc.set_attributes(_of_worker(worker))
        _stages(self._clock, _OF_RUNTIME, outcome, self._stage)
        if self._span is not None:
            self._span.set_attribute("tandem.outcome", outcome)
            _fail(self._span, outcome)
            self._span.end(self._request.ns(self._clock.now_s()))

    def _stage(self, stage: Stage, start_s: float, end_s: float, outcome: str) -> None:
        if stage == "rpc" and self._rpc is not None:
            span = self._rpc
        else:
            span = self._request.start(stage, self._inside, start_s, self._attributes)
        _fail(span, outcome)
        span.end(self._request.ns(end_s))


class CallTrace:
    def __init__(
        self,
        request: RequestTrace,
        clock: StageClock,
        inside: Context,
        method: str,
        address: str,
        attributes: _Attributes,
    ) -> None:
        service, _, name = method.removeprefix("/").rpartition("/")
        host, _, port = address.rpartition(":")
        self._request = request
        self._clock = clock
        rpc: _Attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": name,
            "server.address": host or address,
        } | ({"server.port": int(port)} if port.isdigit() and host else {})
        self._span = request.start(f"{service}/{name}", inside, clock.now_s(), attributes | rpc, SpanKind.CLIENT)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(self._span, Context()))
        # Without `tracestate`: a client may send more of it than a worker takes as metadata.
        self.metadata: tuple[tuple[str, str], ...] = (("traceparent", carrier["traceparent"]),)

    def end(self, code: int, failure: str | None) -> None:
        self._span.set_attribute("rpc.grpc.status_code", code)
        _fail(self._span, failure or "ok")
        self._span.end(self._request.ns(self._clock.now_s()))


def _of_worker(worker: WorkerTimes) -> _Attributes:
    attributes: _Attributes = {f"tandem.worker.{part}_ms": value for part, value in worker.ms().items()}
    return attributes if worker.batch is None else attributes | {"tandem.worker.batch_size": worker.batch}


def _parent(scope: Scope) -> Context:
    """The span that the client says this request is part of; an empty context where it says nothing valid."""
    given: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            key, text = name.decode(), value.decode("latin-1")
            given[key] = f"{given[key]},{text}" if key in given else text
    return _PROPAGATOR.extract(given, Context())


def _stages(
    clock: StageClock, among: frozenset[Stage], outcome: str, record: Callable[[Stage, float, float, str], None]
) -> None:
    """Record each stage of `among` that is over, and, where the request failed in one, that one as well."""
    for stage, start_s, end_s in clock.laps():
        if stage in among:
            record(stage, start_s, end_s, "ok")
    if outcome != "ok" and clock.seconds and clock.running in among:
        record(clock.running, clock.last_s, clock.now_s(), outcome)


def _fail(span: Span, outcome: str, detail: str | None = None) -> None:
    """Mark what failed. Where the client went away nobody did."""
    if outcome not in ("ok", "cancelled"):
        span.set_status(Status(StatusCode.ERROR, detail))
        span.set_attribute("error.type", outcome)
