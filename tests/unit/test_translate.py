"""What each worker's gRPC codes mean: facts of two servers, tried on the real ones."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
import safetensors.numpy

from gateway.errors import DeadlineExceeded, RuntimeFailed, RuntimeFault, RuntimeUnavailable
from gateway.runtimes import tf, torch
from gateway.runtimes.base import ModelRef
from proto import tensorflow_serving_pb2 as tfs
from proto.torchserve_inference_pb2 import PredictionResponse

Code = grpc.StatusCode
DIGITS = ModelRef("digits", 1)


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None)


@pytest.mark.parametrize(
    ("code", "details", "meaning"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded),
        (Code.UNAVAILABLE, "failed to connect to all addresses", RuntimeUnavailable),
        (Code.UNAVAILABLE, "Stream removed (Socket closed)", RuntimeUnavailable),
        (
            Code.INTERNAL,
            "Model not found: x\norg.pytorch.serve.archive.model.ModelNotFoundException",
            RuntimeUnavailable,
        ),
        (Code.INTERNAL, "Model version: 9 does not exist\n….ModelVersionNotFoundException", RuntimeUnavailable),
        (Code.INTERNAL, 'Model "x" Version 1" has no worker to serve inference request.', RuntimeUnavailable),
        (Code.RESOURCE_EXHAUSTED, "Worker died.\n…InternalServerException", RuntimeUnavailable),
        (Code.INTERNAL, "Worker died.\n…InternalServerException", RuntimeUnavailable),
        (Code.CANCELLED, "Stream removed (RST_STREAM error code 8)", RuntimeFailed),  # a message over its limit
        (Code.INTERNAL, "anything else", RuntimeFailed),
    ],
)
def test_torchserves_codes(code: grpc.StatusCode, details: str, meaning: type[RuntimeFault]) -> None:
    fault = torch.translate(DIGITS, rpc_error(code, details))
    assert type(fault) is meaning
    assert details not in str(fault)


def test_a_stream_that_torchserve_ends_at_the_deadline_is_no_failure_of_its() -> None:
    error = rpc_error(Code.CANCELLED, "Received RST_STREAM with error code 8")
    assert type(torch.translate(DIGITS, error, late=True)) is DeadlineExceeded
    unreachable = rpc_error(Code.UNAVAILABLE, "failed to connect to all addresses")
    assert type(torch.translate(DIGITS, unreachable, late=True)) is RuntimeUnavailable


@pytest.mark.parametrize("code", [Code.CANCELLED, Code.RESOURCE_EXHAUSTED])
def test_what_tensorflow_serving_says_of_a_deadline_that_has_passed_is_that(code: grpc.StatusCode) -> None:
    assert type(tf.translate(DIGITS, rpc_error(code, "any"), late=True)) is DeadlineExceeded
    assert type(tf.translate(DIGITS, rpc_error(code, "any"))) is not DeadlineExceeded


@pytest.mark.parametrize(
    ("metadata", "queue_s", "inference_s"),
    [
        pytest.param({"queue_ms": "2.5", "inference_ms": "4"}, 0.0025, 0.004, id="told"),
        pytest.param({"queue_ms": "700", "inference_ms": "4"}, 0.006, 0.004, id="by a clock that is behind"),
        pytest.param({"queue_ms": "1", "inference_ms": "40"}, 0.0, 0.04, id="computed for longer than the call took"),
        pytest.param({"inference_ms": "4"}, None, 0.004, id="no wait told"),
        pytest.param({}, None, None, id="by another handler"),
    ],
)
def test_a_picture_waited_no_longer_than_the_call_took_beside_its_inference(
    metadata: dict[str, str], queue_s: float | None, inference_s: float | None
) -> None:
    buffer = safetensors.numpy.save({"scores": np.zeros((1, 2), np.float32)}, metadata)
    output = torch.from_response(DIGITS, PredictionResponse(prediction=buffer), rpc_s=0.01)
    assert (output.queue_s, output.inference_s) == pytest.approx((queue_s, inference_s))


def test_a_request_says_when_it_was_sent() -> None:
    request = torch.to_request(DIGITS, np.zeros((1, 2, 2, 3), np.uint8), sent_ns=1_700_000_000_123_456_789)
    assert dict(request.input) == {"image": bytes(12), "sent_ns": b"1700000000123456789"}


@pytest.mark.parametrize(
    ("code", "details", "meaning"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded),
        (Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full", RuntimeUnavailable),
        (Code.CANCELLED, "CANCELLED", RuntimeUnavailable),  # it was stopping when the call came
        (Code.NOT_FOUND, "Servable not found for request: Specific(x, 1)", RuntimeUnavailable),
        (Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue", RuntimeUnavailable),
        (Code.INVALID_ARGUMENT, "input size does not match signature", RuntimeFailed),
        (Code.FAILED_PRECONDITION, "Serving signature key not found", RuntimeFailed),
        (Code.INTERNAL, "anything else", RuntimeFailed),
    ],
)
def test_tensorflow_servings_codes(code: grpc.StatusCode, details: str, meaning: type[RuntimeFault]) -> None:
    fault = tf.translate(DIGITS, rpc_error(code, details))
    assert type(fault) is meaning
    assert details not in str(fault)


@pytest.mark.parametrize(
    ("code", "details", "meaning", "says"),
    [
        (Code.UNAVAILABLE, "failed to connect to all addresses", RuntimeUnavailable, "cannot be reached"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, "before the deadline"),
        (
            Code.NOT_FOUND,
            "Model not found at: digits-1.mar\norg.pytorch.serve.archive.model.ModelNotFoundException",
            RuntimeUnavailable,
            "digits-1.mar is not in TorchServe's view",
        ),
        (Code.PERMISSION_DENIED, "Model API disabled\norg.….ModelException", RuntimeFailed, "Model API disabled"),
        (Code.UNKNOWN, "", RuntimeFailed, "does not say why"),
    ],
)
def test_torchserves_answers_to_changes(
    code: grpc.StatusCode, details: str, meaning: type[RuntimeFault], says: str
) -> None:
    fault = torch.management_fault(DIGITS, rpc_error(code, details))
    assert type(fault) is meaning
    assert says in str(fault)


State = tfs.ModelVersionStatus.State


@pytest.mark.parametrize(
    ("state", "code", "error", "meaning"),
    [
        (State.START, Code.OK, "", "loading"),
        (State.LOADING, Code.OK, "", "loading"),
        (State.AVAILABLE, Code.OK, "", "ready"),
        (State.UNLOADING, Code.OK, "", "loading"),
        (State.END, Code.OK, "", "absent"),
        (State.END, Code.CANCELLED, "Loading of servable cancelled", "absent"),
        (State.END, Code.FAILED_PRECONDITION, "Could not read /view/digits/1/saved_model.pb", "failed"),
    ],
)
def test_tensorflow_servings_states(
    state: tfs.ModelVersionStatus.State, code: grpc.StatusCode, error: str, meaning: str
) -> None:
    response = tfs.GetModelStatusResponse()
    version = response.model_version_status.add(version=1, state=state)
    version.status.error_code, version.status.error_message = code.value[0], error
    status = tf.from_status(DIGITS, response, Path("/view"))
    assert status.state == meaning
    assert "/view" not in (status.reason or "")
    assert tf.from_status(ModelRef("digits", 2), response, Path("/view")).state == "absent"
