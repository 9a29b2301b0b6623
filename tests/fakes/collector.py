"""An OTLP collector in this process: the official service, over real gRPC, that keeps what it is sent.

`python -m tests.fakes.collector PORT` is one of its own that keeps nothing, to measure a traced gateway with.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support.stack import HOST

Kind = trace_pb2.Span.SpanKind


@dataclass(frozen=True)
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    """Empty: it has none."""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    failed: bool
    resource: dict[str, Any]

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.endpoint = ""
        self.bodies: list[bytes] = []
        """What came, as it came."""
        self.spans: list[Span] = []
        self.answering = threading.Event()
        """While it is not set the collector takes what comes and does not answer."""
        self.answering.set()
        self.asked = threading.Event()

    def Export(  # noqa: N802  the service's name for it
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.asked.set()
        self.answering.wait()
        self.bodies.append(request.SerializeToString())
        for each in request.resource_spans:
            resource = _attributes(each.resource.attributes)
            for scope in each.scope_spans:
                self.spans += [_span(span, resource) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def inside(self, parent: Span) -> list[Span]:
        """Its children, in order."""
        return sorted((span for span in self.spans if span.parent_id == parent.span_id), key=lambda each: each.start_ns)

    def request(self) -> Span:
        """The only span of a server's."""
        (span,) = (span for span in self.spans if span.kind == Kind.SPAN_KIND_SERVER)
        return span


class _Sink(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        return trace_service_pb2.ExportTraceServiceResponse()


def _served(service: trace_service_pb2_grpc.TraceServiceServicer, port: int) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    return server, port


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    server, port = _served(collector, 0)
    collector.endpoint = f"http://{HOST}:{port}"
    try:
        yield collector
    finally:
        collector.answering.set()
        server.stop(grace=5).wait()


def _span(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        kind = pair.value.WhichOneof("value")
        return None if kind is None else getattr(pair.value, kind)

    return {pair.key: value(pair) for pair in pairs}


if __name__ == "__main__":
    _served(_Sink(), int(sys.argv[1]))[0].wait_for_termination()
