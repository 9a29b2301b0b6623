"""Traces of a gateway on the running stack's workers, which are told of them and answer as ever."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings, TfSettings, TorchSettings, TracingSettings
from proto import methods
from tests.fakes.collector import Kind, collecting
from tests.support.serving import served
from tests.support.stack import ROOT, Stack

SAMPLES = ROOT / "models" / "digits" / "samples"
METHODS = {"torch": methods.PREDICTIONS.path, "tf": methods.PREDICT.path}


def test_each_call_of_a_real_worker_is_a_span_inside_the_stage_rpc(stack: Stack) -> None:
    stack.wait_until_ready()
    environment, digits = stack.environment, [3, 1, 4, 1, 5, 9]
    files = [("image", (SAMPLES / f"{digit}.png").read_bytes()) for digit in digits]
    with collecting() as collector:
        settings = Settings(
            var=stack.var,
            warm_up_requests=0,
            torch=TorchSettings(
                address=environment["TANDEM_TORCH__ADDRESS"],
                management_address=environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"],
            ),
            tf=TfSettings(address=environment["TANDEM_TF__ADDRESS"]),
            tracing=TracingSettings(endpoint=collector.endpoint),
        )
        with served(create_app(settings)) as url:
            answer = httpx.post(f"{url}/v1/models/digits/compare?version=1", files=files, timeout=30).json()
    for runtime, method in METHODS.items():
        part = answer["runtimes"][runtime]
        assert [int(result["predictions"][0]["label"]) for result in part["results"]] == digits
        (span,) = collector.named(runtime)
        (rpc,) = (each for each in collector.inside(span) if each.name == "rpc")
        assert rpc.seconds * 1000 == pytest.approx(part["timing_ms"]["rpc"], abs=0.01)
        calls = collector.inside(rpc)
        assert [call.name for call in calls] == [method.removeprefix("/")] * len(digits)
        for call in calls:
            assert (call.kind, call.failed) == (Kind.SPAN_KIND_CLIENT, False)
            assert call.attributes["rpc.grpc.status_code"] == 0
            assert rpc.start_ns <= call.start_ns <= call.end_ns <= rpc.end_ns
