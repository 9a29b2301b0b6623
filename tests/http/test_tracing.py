"""Traces, as a real collector receives them from a gateway over fakes; and what tracing must not do."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import structlog

from gateway import errors
from gateway.app import create_app
from gateway.settings import Settings, TracingSettings
from gateway.stages import STAGES, StageClock
from gateway.tracing import Tracing
from modelkit.spec import RuntimeName
from proto import methods
from tests.conftest import Fakes
from tests.fakes.collector import Collector, Kind, Span
from tests.support.packages import write_store
from tests.support.pictures import encode, plain
from tests.support.serving import served
from tests.support.stack import HOST, ROOT, free_ports

PREDICT = "/v1/models/digits/predict"
COMPARE = "/v1/models/digits/compare"
OF_RUNTIME = ["queue", "rpc", "postprocess"]
CLIENT = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


def traceparent(*, sampled: bool) -> dict[str, str]:
    return {"traceparent": f"00-{CLIENT['trace_id']}-{CLIENT['span_id']}-0{int(sampled)}"}


def upload(count: int = 1) -> list[tuple[str, bytes]]:
    return [("image", encode(plain(number))) for number in range(count)]


@contextmanager
def gateway(var: Path, runtimes: Fakes | None, endpoint: str, **settings: object) -> Iterator[httpx.Client]:
    """A gateway that sends its traces to `endpoint`: all of them before the block ends."""
    if not (var / "store").exists():
        write_store(var / "store", 1)
    tracing = {"endpoint": endpoint, "sample_ratio": settings.pop("sample_ratio", 1.0)}
    app = create_app(Settings(var=var, warm_up_requests=0, tracing=tracing, **settings), runtimes)  # type: ignore[arg-type]
    with served(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


Trace = Callable[..., httpx.Response]


@pytest.fixture
def trace(tmp_path: Path, fakes: Fakes, collector: Collector) -> Trace:
    """Sends one request to a traced gateway; when it returns the collector has its trace."""

    def trace(path: str = PREDICT, method: str = "POST", **request: object) -> httpx.Response:
        settings = {name: request.pop(name) for name in ("sample_ratio", "limits", "torch") if name in request}
        with gateway(tmp_path, fakes, collector.endpoint, **settings) as client:
            if method == "POST":
                request.setdefault("files", upload())
            return client.request(method, path, **request)  # type: ignore[arg-type]

    return trace


def names(spans: list[Span]) -> list[str]:
    return [span.name for span in spans]


def lies_inside(span: Span, parent: Span) -> bool:
    return parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns


def test_a_request_is_one_trace_with_its_seven_stages_one_after_the_other(trace: Trace, collector: Collector) -> None:
    answer = trace(files=upload(3), headers={"x-request-id": "mine"})
    request = collector.request()
    assert (request.name, request.parent_id, request.failed) == ("POST /v1/models/{model}/predict", "", False)
    assert request.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": PREDICT,
        "network.protocol.version": "1.1",
        "http.route": "/v1/models/{model}/predict",
        "http.response.status_code": 200,
        "tandem.request_id": "mine",
        "tandem.model": "digits",
        "tandem.version": 1,
        "tandem.runtime": "torch",
        "tandem.role": "primary",
        "tandem.images": 3,
        "tandem.outcome": "ok",
    }
    stages = collector.inside(request)
    assert names(stages) == list(STAGES)
    assert {span.trace_id for span in collector.spans} == {request.trace_id}
    for stage, following in itertools.pairwise(stages):
        assert lies_inside(stage, request)
        assert abs(stage.end_ns - following.start_ns) < 10_000  # rounding
        assert (stage.kind, stage.failed) == (Kind.SPAN_KIND_INTERNAL, False)
    timing = answer.json()["timing_ms"]
    for stage in stages[:-1]:
        assert stage.seconds * 1000 == pytest.approx(timing[stage.name], abs=0.01)
    assert stages[0].start_ns == request.start_ns
    of_runtime = {"tandem.model": "digits", "tandem.version": 1, "tandem.runtime": "torch", "tandem.role": "primary"}
    for stage in stages:
        assert stage.attributes == (of_runtime | {"tandem.images": 3} if stage.name in OF_RUNTIME else {})


def test_the_workers_part_is_on_the_rpc_span(trace: Trace, fakes: Fakes, collector: Collector) -> None:
    fakes["torch"].queue_s, fakes["torch"].inference_s, fakes["torch"].batch = 0.00125, 0.0045, 8
    trace(files=upload(2))
    said = {
        span.name: {name: value for name, value in span.attributes.items() if name.startswith("tandem.worker.")}
        for span in collector.spans
    }
    assert {name: attributes for name, attributes in said.items() if attributes} == {
        "rpc": {"tandem.worker.queue_ms": 1.25, "tandem.worker.inference_ms": 4.5, "tandem.worker.batch_size": 8}
    }


def test_traces_say_which_service_made_them(trace: Trace, collector: Collector) -> None:
    trace()
    resource = collector.request().resource
    assert resource["service.name"] == "tandem-gateway"
    assert re.fullmatch(r"\d+\.\d+\.\d+", resource["service.version"])
    assert resource["service.instance.id"]


def test_compare_shows_both_runtimes_beside_each_other(trace: Trace, collector: Collector) -> None:
    trace(COMPARE, files=upload(2))
    request = collector.request()
    assert request.attributes["tandem.role"] == "compare"
    assert request.attributes["tandem.runtime"] == "both"
    children = collector.inside(request)
    assert sorted(names(children)) == sorted(["receive", "decode", "preprocess", "torch", "tf", "serialize"])
    for runtime in ("torch", "tf"):
        (part,) = collector.named(runtime)
        assert lies_inside(part, request)
        assert (part.attributes["tandem.runtime"], part.attributes["tandem.outcome"]) == (runtime, "ok")
        stages = collector.inside(part)
        assert names(stages) == OF_RUNTIME
        assert all(lies_inside(stage, part) for stage in stages)
        assert {stage.attributes["tandem.runtime"] for stage in stages} == {runtime}


def test_one_runtime_failing_in_compare_fails_its_part_alone(trace: Trace, fakes: Fakes, collector: Collector) -> None:
    fakes["tf"].error = errors.RuntimeFailed("No.")
    assert trace(COMPARE).status_code == 200
    assert {span.name: span.attributes["error.type"] for span in collector.spans if span.failed} == {
        "tf": "runtime_failed",
        "rpc": "runtime_failed",
    }
    (part,) = collector.named("tf")
    assert names(collector.inside(part)) == ["queue", "rpc"]
    assert not collector.request().failed


def test_a_shadow_has_a_span_of_its_own_and_leaves_the_requests_as_it_is(
    tmp_path: Path, fakes: Fakes, collector: Collector
) -> None:
    with gateway(tmp_path, fakes, collector.endpoint) as client:
        key = (tmp_path / "admin.key").read_text().strip()
        policy = {"policy": "shadow", "primary": "torch", "shadow": "tf"}
        client.put(
            "/v1/models/digits/routing", json=policy, headers={"authorization": f"Bearer {key}"}
        ).raise_for_status()
        client.post(PREDICT, files=upload())
        end_s = time.monotonic() + 30
        while "tandem_agreement_total{" not in client.get("/metrics").text:
            assert time.monotonic() < end_s
    (request,) = (span for span in collector.spans if span.name == "POST /v1/models/{model}/predict")
    assert (request.attributes["tandem.role"], request.attributes["tandem.runtime"]) == ("primary", "torch")
    (shadow,) = collector.named("tf")
    assert (shadow.trace_id, shadow.parent_id) == (request.trace_id, request.span_id)
    assert (shadow.attributes["tandem.role"], shadow.attributes["tandem.outcome"]) == ("shadow", "ok")
    assert names(collector.inside(shadow)) == OF_RUNTIME


@pytest.mark.parametrize(
    ("error", "status"),
    [(errors.RuntimeFailed("No."), 502), (errors.RuntimeUnavailable("No."), 503), (ValueError("a secret"), 500)],
    ids=["runtime_failed", "runtime_unavailable", "internal_error"],
)
def test_a_failure_of_ours_or_the_workers_marks_the_request_and_its_stage(
    trace: Trace, fakes: Fakes, collector: Collector, error: Exception, status: int
) -> None:
    fakes["torch"].error = error
    answer = trace()
    assert answer.status_code == status
    request = collector.request()
    code = answer.json()["code"]
    assert (request.failed, request.attributes["error.type"], request.attributes["tandem.outcome"]) == (
        True,
        code,
        code,
    )
    assert request.attributes["http.response.status_code"] == status
    stages = collector.inside(request)
    assert names(stages) == ["receive", "decode", "preprocess", "queue", "rpc"]
    assert [(stage.failed, stage.attributes.get("error.type")) for stage in stages[-2:]] == [
        (False, None),
        (True, code),
    ]
    assert b"a secret" not in b"".join(collector.bodies)


def test_a_mistake_of_the_clients_is_told_and_is_no_error_of_the_servers(trace: Trace, collector: Collector) -> None:
    answer = trace(files=[("image", b"\x89PNG\r\n\x1a\n broken")])
    assert answer.status_code == 422
    request = collector.request()
    assert (request.failed, request.attributes["tandem.outcome"]) == (False, "invalid_image")
    stages = collector.inside(request)
    assert [(stage.name, stage.failed) for stage in stages] == [("receive", False), ("decode", True)]
    assert stages[-1].attributes["error.type"] == "invalid_image"


def test_a_request_that_finds_no_place_in_time_fails_in_the_queue(
    tmp_path: Path, fakes: Fakes, collector: Collector
) -> None:
    fakes["torch"].hold = asyncio.Event()
    limits = {"max_inflight": 1, "max_queue": 1}
    with gateway(tmp_path, fakes, collector.endpoint, torch=limits) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, PREDICT, files=upload(), params={"timeout_ms": 3000})
        while 'tandem_inflight{runtime="torch"} 1.0' not in client.get("/metrics").text:
            pass
        for answer in (client.post(PREDICT, files=upload(), params={"timeout_ms": 200}), first.result()):
            assert answer.json()["code"] == "deadline_exceeded"
    failed = {span.name: span for span in collector.spans if span.failed and span.kind == Kind.SPAN_KIND_INTERNAL}
    assert failed.keys() == {"queue", "rpc"}
    assert failed["queue"].attributes["error.type"] == "deadline_exceeded"
    assert failed["queue"].attributes["tandem.runtime"] == "torch"


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [("/v1/models/digits", "GET /v1/models/{model}", 200), ("/nothing/here", "GET", 404)],
    ids=["route", "none"],
)
def test_other_requests_have_a_span_that_is_named_after_the_route_never_the_path(
    trace: Trace, collector: Collector, path: str, name: str, status: int
) -> None:
    assert trace(path, "GET").status_code == status
    assert names(collector.spans) == [name]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_are_not_traced(trace: Trace, collector: Collector, path: str) -> None:
    trace(path, "GET")
    assert collector.spans == []


def test_a_method_and_a_path_of_the_clients_making_are_bounded(trace: Trace, collector: Collector) -> None:
    trace(f"/{'x' * 5000}", "PROPFIND")
    request = collector.request()
    assert (request.name, request.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert len(request.attributes["url.path"]) == 256


def test_a_clients_trace_goes_on(trace: Trace, collector: Collector) -> None:
    trace(headers=traceparent(sampled=True) | {"tracestate": "vendor=1"}, sample_ratio=0.0)
    request = collector.request()
    assert (request.trace_id, request.parent_id) == (CLIENT["trace_id"], CLIENT["span_id"])


def test_what_a_client_does_not_sample_is_not_sent(trace: Trace, collector: Collector) -> None:
    assert trace(headers=traceparent(sampled=False)).status_code == 200
    assert collector.spans == []


def test_a_ratio_of_zero_traces_nothing_of_its_own_accord(trace: Trace, collector: Collector) -> None:
    assert trace(sample_ratio=0.0).status_code == 200
    assert collector.spans == []


@pytest.mark.parametrize(
    "given",
    ["", "nonsense", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01", "é"],
    ids=repr,
)
def test_a_malformed_traceparent_begins_a_new_trace(trace: Trace, collector: Collector, given: str) -> None:
    assert trace(headers=[("traceparent", given.encode())]).status_code == 200
    assert collector.request().parent_id == ""


def test_no_key_query_picture_or_file_of_this_machine_is_sent(
    trace: Trace, collector: Collector, tmp_path: Path
) -> None:
    (picture,) = upload()
    trace(files=[picture], headers={"authorization": "Bearer s3cret"}, params={"top_k": 3})
    sent = b"".join(collector.bodies)
    assert PREDICT.encode() in sent
    for hidden in (b"s3cret", b"top_k", picture[1][:16], str(tmp_path).encode(), str(ROOT).encode()):
        assert hidden not in sent


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "not sampled"])
def test_a_requests_log_lines_name_its_trace(trace: Trace, fakes: Fakes, collector: Collector, sampled: bool) -> None:
    fakes["torch"].error = errors.RuntimeFailed("No.")  # the tests' log has errors only
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        trace(headers=traceparent(sampled=sampled))
    (line,) = (line for line in lines if line["event"] == "request")
    assert line["trace_id"] == CLIENT["trace_id"]
    assert re.fullmatch(r"[0-9a-f]{16}", line["span_id"])
    if sampled:
        assert line["span_id"] == collector.request().span_id


@contextmanager
def failing_worker(method: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a gRPC server that refuses calls of one method, and the metadata of those that came."""
    came: list[dict[str, str]] = []

    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        came.append({key: str(value) for key, value in context.invocation_metadata()})
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "No.")
        raise AssertionError("abort raises")

    service, _, name = method.removeprefix("/").rpartition("/")
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {name: grpc.unary_unary_rpc_method_handler(refuse)})]
    )
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield f"{HOST}:{port}", came
    finally:
        server.stop(grace=5).wait()


@pytest.mark.parametrize("name", ["torch", "tf"])
def test_a_grpc_call_is_a_clients_span_whose_trace_the_worker_is_told(
    tmp_path: Path, collector: Collector, name: RuntimeName
) -> None:
    method = methods.PREDICTIONS.path if name == "torch" else methods.PREDICT.path
    long = ",".join(f"vendor{number}={'x' * 250}" for number in range(32))  # more than a worker takes as metadata
    with failing_worker(method) as (address, came):
        at = {name: {"address": address}}
        with gateway(tmp_path, None, collector.endpoint, **at) as client:
            headers = traceparent(sampled=True) | {"tracestate": long}
            answer = client.post(PREDICT, files=upload(), params={"runtime": name, "version": 1}, headers=headers)
    assert answer.status_code in (502, 503)
    (call,) = (span for span in collector.spans if span.kind == Kind.SPAN_KIND_CLIENT)
    assert call.name == method.removeprefix("/")
    service, _, rpc_method = call.name.rpartition("/")
    host, _, port = address.rpartition(":")
    assert call.attributes == {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": rpc_method,
        "rpc.grpc.status_code": grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
        "error.type": "RESOURCE_EXHAUSTED",
        "server.address": host,
        "server.port": int(port),
        "tandem.model": "digits",
        "tandem.version": 1,
        "tandem.runtime": name,
        "tandem.role": "primary",
        "tandem.images": 1,
    }
    assert call.failed
    (rpc,) = collector.named("rpc")
    assert call.parent_id == rpc.span_id
    assert lies_inside(call, rpc)
    (metadata,) = came
    assert metadata["traceparent"] == f"00-{CLIENT['trace_id']}-{call.span_id}-01"
    assert "tracestate" not in metadata


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded_but_the_interface_that_fastapi_imports(
    tmp_path: Path,
) -> None:
    """Also where the variables are set by which FastAPI would send telemetry of its own."""
    write_store(tmp_path / "store", 1)
    program = """
import json, sys, httpx
from pathlib import Path
from gateway.app import create_app
from gateway.settings import Settings
from tests.fakes.runtimes import FakeRuntime
from tests.support.pictures import encode, plain
from tests.support.serving import served
fakes = {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf")}
with served(create_app(Settings(var=Path(sys.argv[1]), warm_up_requests=0), fakes)) as url:
    status = httpx.post(f"{url}/v1/models/digits/compare", files={"image": encode(plain(1))}).status_code
heavy = ("gateway.tracing", "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "google.rpc")
print(json.dumps([status, [name for name in sys.modules if name.startswith(heavy)]]))
"""
    environment = os.environ | {
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:1",
    }
    command = [sys.executable, "-c", program, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [200, []]


def many_spans(tracing: Tracing, requests: int) -> None:
    scope = {"method": "GET", "scheme": "http", "path": "/", "http_version": "1.1", "headers": []}
    for _ in range(requests):
        tracing.begin(scope, "id", StageClock()).end(scope, status=200, code="ok", detail=None, facts={})


class Said(logging.Handler):
    """What OpenTelemetry itself logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.any = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.any.set()


@pytest.fixture
def said() -> Iterator[Said]:
    said, logger = Said(), logging.getLogger("opentelemetry")
    logger.addHandler(said)
    yield said
    logger.removeHandler(said)


def test_a_collector_that_is_away_harms_no_request_and_is_logged_rarely(
    tmp_path: Path, fakes: Fakes, said: Said
) -> None:
    (port,) = free_ports(1)
    with gateway(tmp_path, fakes, f"http://{HOST}:{port}") as client:
        for _ in range(100):
            assert client.post(PREDICT, files=upload()).status_code == 200
        assert said.any.wait(30)
    assert all("Failed to export traces" in line and str(port) in line for line in said.lines)
    assert len(said.lines) < 5


def test_a_collector_that_hangs_harms_no_request_and_what_has_no_room_is_dropped_and_logged(
    tmp_path: Path, fakes: Fakes, collector: Collector, said: Said
) -> None:
    collector.answering.clear()
    with gateway(tmp_path, fakes, collector.endpoint) as client:
        for _ in range(400):  # at eight spans each, more than are kept
            assert client.post(PREDICT, files=upload()).status_code == 200
        assert collector.asked.is_set()
    dropped = [line for line in said.lines if "dropping" in line]
    assert 1 <= len(dropped) < 5


def test_shutdown_does_not_wait_for_a_collector_that_hangs(collector: Collector) -> None:
    collector.answering.clear()
    tracing = Tracing(TracingSettings(endpoint=collector.endpoint), version="1")
    many_spans(tracing, 2000)  # four batches: each would be waited for
    closing = threading.Thread(target=tracing.close, daemon=True)
    with structlog.testing.capture_logs() as lines:
        closing.start()
        closing.join(8)
    assert not closing.is_alive()
    assert [line["event"] for line in lines] == ["traces_lost"]
