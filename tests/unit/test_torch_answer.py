"""What a TorchServe answer says of its way through the worker."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

from gateway.runtimes.base import ModelRef, Output
from gateway.runtimes.torch import from_response
from proto import torchserve_inference_pb2 as inference


def read(metadata: dict[str, str]) -> Output:
    buffer = safetensors.numpy.save({"scores": np.zeros((1, 10), np.float32)}, metadata)
    return from_response(ModelRef("digits", 1), inference.PredictionResponse(prediction=buffer), rpc_s=1.0)


def test_the_workers_own_times_are_seconds() -> None:
    output = read({"batch_size": "8", "queue_ms": "1.250", "inference_ms": "4.500"})
    assert output.batch == 8
    assert (output.queue_s, output.inference_s) == pytest.approx((0.00125, 0.0045))


@pytest.mark.parametrize("said", [None, "soon", "", "nan", "inf", "-0.5"], ids=repr)
def test_what_is_no_time_is_not_known_and_the_picture_is_answered(said: str | None) -> None:
    output = read({} if said is None else {"queue_ms": said, "inference_ms": said})
    assert (output.queue_s, output.inference_s) == (None, None)
    assert output.tensors["scores"].shape == (1, 10)
