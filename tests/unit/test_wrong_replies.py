"""Workers whose answers are not what the model promises: RuntimeFailed, whatever is wrong with them.

The answers come from a real gRPC server, so that what the client's own gRPC makes of them is in it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import RuntimeFailed, RuntimeFault
from gateway.images.geometry import Geometry
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import TfSettings, TorchSettings
from gateway.tasks.base import Found
from gateway.tasks.table import TASKS
from modelkit.spec import RUNTIME_NAMES, ModelSpec, RuntimeName
from proto import tensorflow_pb2 as tf
from tests.fakes.proxy import AnyMethod
from tests.support.packages import detector_spec, digits_spec, segmenter_spec
from tests.support.replies import (
    Arrays,
    reply,
    right,
    safetensors_buffer,
    tf_reply,
    tf_shape,
    tf_tensor,
    torch_reply,
)

pytestmark = pytest.mark.anyio

SPECS = (digits_spec(), detector_spec(), segmenter_spec())
PICTURE = np.zeros((1, 64, 64, 3), np.uint8)


class Worker:
    """A server that answers every call with the same bytes, and the client of it."""

    def __init__(self, runtime: RuntimeName) -> None:
        self.answer = b""
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((AnyMethod(self._answer),))
        address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._client: Runtime = (
            TorchRuntime(TorchSettings(address=address, management_address=address))
            if runtime == "torch"
            else TfRuntime(TfSettings(address=address), Path("nowhere"))
        )

    async def __aenter__(self) -> Worker:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._server.stop(None)

    async def predictions(self, spec: ModelSpec, answer: bytes) -> Sequence[Any]:
        """What the gateway makes of the worker's `answer`."""
        self.answer = answer
        output = await self._client.infer(ModelRef.of(spec), PICTURE, deadline=Deadline.after_ms(10_000))
        task, geometry = TASKS[spec.task], Geometry.of((640, 480), spec.input)
        found: Found = task.find(spec, output.tensors, geometry, task.defaults(spec))
        return found.predictions

    async def _answer(self, path: str, request: bytes, timeout_s: float | None) -> bytes:
        return self.answer


each_runtime = pytest.mark.parametrize("runtime", RUNTIME_NAMES)
each_task = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.task)


@each_runtime
@each_task
async def test_the_right_answer_is_taken(runtime: RuntimeName, spec: ModelSpec) -> None:
    async with Worker(runtime) as worker:
        assert await worker.predictions(spec, reply(runtime, right(spec)))


def _last(tensors: Arrays) -> str:
    """The tensor of the most dimensions, of one."""
    return max(tensors, key=lambda name: tensors[name].ndim)


def _changed(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {**tensors, _last(tensors): change(tensors[_last(tensors)])}


def _with(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(tensor: NDArray[Any]) -> NDArray[Any]:
        changed = tensor.copy()
        changed.flat[-1] = value
        return changed

    return change


@each_runtime
@each_task
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda _: {}, id="no tensor"),
        pytest.param(lambda tensors: {name[:-1]: each for name, each in tensors.items()}, id="other names"),
        pytest.param(_changed(lambda each: each[:, :-1]), id="too few"),
        pytest.param(_changed(lambda each: np.concatenate([each, each], axis=1)), id="too many"),
        pytest.param(_changed(lambda each: each[0]), id="no batch"),
        pytest.param(_changed(lambda each: np.concatenate([each, each])), id="a batch of two"),
        pytest.param(_changed(lambda each: each[:, :0]), id="of no size"),
        pytest.param(_changed(lambda each: each.astype(np.float64)), id="float64"),
        pytest.param(_changed(lambda each: each.astype(np.int64)), id="int64"),
        pytest.param(_changed(lambda each: each.astype(np.uint8)), id="uint8"),
        pytest.param(_changed(_with(np.nan)), id="NaN"),
        pytest.param(_changed(_with(np.inf)), id="infinite"),
    ],
)
async def test_tensors_that_the_model_does_not_promise_are_refused(
    runtime: RuntimeName, spec: ModelSpec, wrong: Callable[[Arrays], Arrays]
) -> None:
    async with Worker(runtime) as worker:
        with pytest.raises(RuntimeFailed, match=r"tensor|output"):
            await worker.predictions(spec, reply(runtime, wrong(right(spec))))


_TEN = np.zeros((1, 10), np.float32)
_VALUES = 10 * [0.1]
_FLOATS = {"dtype": "F32", "shape": [1, 10], "data_offsets": [0, 40]}
_ANSWERS = {
    "torch": {
        "nothing": b"",
        "no message": b"\xff\xff\xff\xff",
        "no buffer": torch_reply(b""),
        "text": torch_reply(b"Internal Server Error"),
        "half": torch_reply(safetensors_buffer({"scores": _FLOATS}, bytes(20))),
        "header too long": torch_reply(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        "a list": torch_reply(safetensors_buffer([])),
        "metadata no object": torch_reply(safetensors_buffer({"__metadata__": 7, "scores": _FLOATS}, bytes(40))),
        "deep": torch_reply(safetensors_buffer({}) + b"[" * 9),
        "nested": torch_reply((100_000).to_bytes(8, "little") + b"[" * 100_000),
        "negative shape": torch_reply(safetensors_buffer({"scores": _FLOATS | {"shape": [-1, -10]}}, bytes(40))),
        "vast shape": torch_reply(safetensors_buffer({"scores": _FLOATS | {"shape": [2**62, 4]}}, bytes(40))),
        "unknown type": torch_reply(safetensors_buffer({"scores": _FLOATS | {"dtype": "F33"}}, bytes(40))),
        "its own error": torch_reply(safetensors_buffer({"__metadata__": {"error": "out of memory"}})),
    },
    "tf": {
        "nothing": b"",
        "no message": b"\xff\xff\xff\xff",
        "no type": tf_reply({"scores": tf.TensorProto(tensor_shape=tf_shape(1, 10), tensor_content=bytes(40))}),
        "unknown type": tf_reply({"scores": tf.TensorProto(dtype=4321)}),  # type: ignore[arg-type]
        "no values": tf_reply({"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(1, 10))}),
        "half": tf_reply(
            {"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(1, 10), tensor_content=bytes(20))}
        ),
        "no whole value": tf_reply(
            {"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(1, 10), tensor_content=bytes(39))}
        ),
        "negative shape": tf_reply(
            {"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(-1, -10), float_val=_VALUES)}
        ),
        "vast shape": tf_reply(
            {"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(2**62, 4), float_val=[0.5])}
        ),
        "vast shape of many values": tf_reply(
            {"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(2**32, 2**32), float_val=_VALUES)}
        ),
        "of many dimensions": tf_reply(
            {"scores": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf_shape(*[1] * 99), float_val=_VALUES)}
        ),
        "another name": tf_reply({"logits": tf_tensor(_TEN)}),
    },
}


@pytest.mark.parametrize(
    ("runtime", "answer"),
    [
        pytest.param(runtime, answer, id=f"{runtime}: {what}")
        for runtime, answers in _ANSWERS.items()
        for what, answer in answers.items()
    ],
)
async def test_what_is_no_answer_is_refused(runtime: RuntimeName, answer: bytes) -> None:
    async with Worker(runtime) as worker:
        with pytest.raises(RuntimeFailed) as raised:
            await worker.predictions(digits_spec(), answer)
    assert len(str(raised.value)) < 1000


@each_runtime
@each_task
async def test_whatever_bytes_are_damaged_the_gateway_has_no_fault_of_its_own(
    runtime: RuntimeName, spec: ModelSpec
) -> None:
    whole, chance = reply(runtime, right(spec)), random.Random(7)  # noqa: S311  not for secrets
    refused = 0
    async with Worker(runtime) as worker:
        for _ in range(300):
            damaged = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.2 else whole)
            # The beginning is what says how the rest is read.
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(min(len(damaged), chance.choice((100, len(whole)))) or 1)
                damaged[at : at + 1] = chance.choice((b"", b"\0", b"\x7f", b"\xff", chance.randbytes(2)))
            try:
                await worker.predictions(spec, bytes(damaged))
            except RuntimeFault:
                refused += 1
    assert refused > 50


@each_task
@pytest.mark.parametrize("value", [3e38, 1e18, 9e17, -9e17, 1e-40], ids=str)
async def test_values_beyond_any_sense_are_no_fault_of_the_gateway(spec: ModelSpec, value: float) -> None:
    for name in spec.outputs:
        tensors = right(spec)
        tensors[name][0] = value
        async with Worker("tf") as worker:
            try:
                found = await worker.predictions(spec, reply("tf", tensors))
            except RuntimeFailed:
                continue
        assert all(abs(each.score) < sys.float_info.max for each in found)
