"""TensorFlow Serving over gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import Conflict, DeadlineExceeded, RuntimeFailed, RuntimeFault, RuntimeUnavailable
from gateway.images.preprocess import ImageTensor
from gateway.runtimes.base import ModelRef, ModelStatus, Output
from gateway.runtimes.channel import open_channel, traced, unary
from gateway.runtimes.tls import Tls
from gateway.settings import TfSettings
from modelkit.spec import RuntimeName
from proto import methods
from proto import tensorflow_pb2 as tf
from proto import tensorflow_serving_pb2 as tfs

_State = tfs.ModelVersionStatus.State
_NO_LONGER_WANTED = (grpc.StatusCode.OK.value[0], grpc.StatusCode.CANCELLED.value[0])
"""Of a version at its end: it was loaded and unloaded, or went before it was loaded."""


class TfRuntime:
    name: RuntimeName = "tf"
    replicas = 1

    def __init__(self, settings: TfSettings, view: Path, tls: Tls | None = None) -> None:
        """`settings` with one address. `view`: the folder of the serving view that the server reads, with its list of
        models."""
        self._view = view.resolve()  # as its list of models has it
        self._channel = open_channel(settings.address, tls)
        self._predict = traced(methods.PREDICT, self._channel, settings.address)
        self._get_status = unary(methods.GET_MODEL_STATUS, self._channel)
        self._reload = unary(methods.HANDLE_RELOAD_CONFIG, self._channel)

    def allows(self, model: ModelRef) -> bool:  # noqa: ARG002
        return True  # one worker by itself has no circuit

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        request = to_request(model, image)
        try:
            response = await self._predict(request, deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            raise translate(model, error, late=deadline.passed) from error
        return from_response(response)

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
        request = tfs.GetModelStatusRequest(model_spec=_model_spec(model))
        try:
            response = await self._get_status(request, deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return _absent(model)
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise translate(model, error) from error
            return ModelStatus("unavailable", f"TensorFlow Serving cannot be reached: {error.details()}")
        return from_status(model, response, self._view)

    async def load(self, model: ModelRef, *, deadline: Deadline) -> None:
        config = await asyncio.to_thread(self._read_config, model)
        folder = self._view / model.name / str(model.version)
        if model.name not in {each.name for each in config.model_config_list.config} or not folder.is_dir():
            raise RuntimeUnavailable(
                f"{model} is not in TensorFlow Serving's view. `python -m modelkit build` puts it there."
            )
        await self._send(model, config, deadline)

    async def unload(self, model: ModelRef, *, deadline: Deadline) -> None:
        # What the list does not name is unloaded; of what it names, the server looks for the folders there are.
        await self._send(model, await asyncio.to_thread(self._read_config, model), deadline)
        status = await self.status(model, deadline=deadline)
        if status.state not in ("absent", "failed"):
            raise RuntimeUnavailable(f"TensorFlow Serving still has {model}: {status.reason or status.state}")

    def _read_config(self, model: ModelRef) -> tfs.ModelServerConfig:
        try:
            return text_format.Parse((self._view / "models.config").read_text(), tfs.ModelServerConfig())
        except (OSError, text_format.ParseError) as error:
            raise RuntimeFailed(
                f"TensorFlow Serving's list of models cannot be read to load or unload {model}. "
                "`python -m modelkit build` writes it."
            ) from error

    async def _send(self, model: ModelRef, config: tfs.ModelServerConfig, deadline: Deadline) -> None:
        """Raises RuntimeFault. A model of the list that cannot be loaded is no fault here: `status` tells which."""
        try:
            await self._reload(tfs.ReloadConfigRequest(config=config), deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise translate(model, error) from error
            if (await self.status(model, deadline=deadline)).state == "absent":
                raise RuntimeFailed(f"TensorFlow Serving refused its list of models: {error.details()}") from error

    async def scale(self, model: ModelRef, replicas: int, *, deadline: Deadline) -> None:  # noqa: ARG002
        raise Conflict(
            f"TensorFlow Serving cannot be given {replicas} replicas of {model} while it runs: how many batches it "
            "computes at once is set at its start. Restart the stack with TANDEM_WORKERS__REPLICAS set."
        )

    async def close(self) -> None:
        await self._channel.close(grace=None)


def to_request(model: ModelRef, image: ImageTensor) -> tfs.PredictRequest:
    tensor = tf.TensorProto(
        dtype=tf.DT_UINT8,
        tensor_shape=tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in image.shape]),
        tensor_content=image.tobytes(),
    )
    return tfs.PredictRequest(model_spec=_model_spec(model), inputs={"image": tensor})


def from_response(response: tfs.PredictResponse) -> Output:
    """The server says neither how large its batch was nor how long anything took.

    Raises RuntimeFailed for a tensor that is not float32, or whose values do not fill its shape.
    """
    return Output({name: _to_array(name, tensor) for name, tensor in response.outputs.items()})


def from_status(model: ModelRef, response: tfs.GetModelStatusResponse, view: Path) -> ModelStatus:
    """What the server says of `model`. Paths below the folder `view` are shortened: others' folders are not told."""
    for version in response.model_version_status:
        if version.version != model.version:
            continue
        if version.state == _State.AVAILABLE:
            return ModelStatus("ready")
        if version.state in (_State.START, _State.LOADING):
            return ModelStatus("loading", f"TensorFlow Serving is loading {model}.")
        if version.state == _State.UNLOADING:
            return ModelStatus("loading", f"TensorFlow Serving is unloading {model}.")
        if version.status.error_code in _NO_LONGER_WANTED:
            break
        why = version.status.error_message.replace(f"{view}/", "")
        return ModelStatus("failed", f"TensorFlow Serving could not load {model}: {why}")
    return _absent(model)


def _absent(model: ModelRef) -> ModelStatus:
    return ModelStatus("absent", f"TensorFlow Serving does not have {model}.")


def translate(model: ModelRef, error: grpc.aio.AioRpcError, *, late: bool = False) -> RuntimeFault:
    """What TensorFlow Serving, or the way to it, means by a status code. `error` keeps the details, for the log.

    `late`: the deadline has passed. The worker knows it, too, and what it says then can be here before this end's own
    gRPC has noticed.
    """
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("TensorFlow Serving did not answer before the deadline.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED | grpc.StatusCode.CANCELLED if late:
            return DeadlineExceeded("TensorFlow Serving did not answer before the deadline.")
        case grpc.StatusCode.UNAVAILABLE:  # not reachable, or its batching queue is full
            return RuntimeUnavailable("TensorFlow Serving cannot take requests now. Try again later.")
        case grpc.StatusCode.CANCELLED:  # not by this end: so are calls that come while it stops
            return RuntimeUnavailable("TensorFlow Serving stopped before it answered. Try again later.")
        case grpc.StatusCode.NOT_FOUND:  # the gateway knows this version: the server does not have it loaded
            return RuntimeUnavailable(f"TensorFlow Serving does not have {model} loaded. See /readyz for the reason.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in (error.details() or ""):  # said by this end
            return RuntimeFailed("TensorFlow Serving's answer is larger than any that is taken.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:  # the request expired in its batching queue
            return RuntimeUnavailable("TensorFlow Serving has too much to do. Try again later.")
        case code:
            return RuntimeFailed(f"TensorFlow Serving failed on this picture ({code.name}).")


def _model_spec(model: ModelRef) -> tfs.ModelSpec:
    spec = tfs.ModelSpec(name=model.name)
    spec.version.value = model.version
    return spec


def _to_array(name: str, tensor: tf.TensorProto) -> NDArray[np.float32]:
    if tensor.dtype != tf.DT_FLOAT:
        known = tensor.dtype in tf.DataType.values()
        kind = tf.DataType.Name(tensor.dtype) if known else f"of the unknown type {tensor.dtype}"
        raise RuntimeFailed(f"TensorFlow Serving's output {name[:100]!r} is {kind}, not DT_FLOAT.")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    try:
        # The real server fills float_val; tensor_content is as valid and what others send.
        values = (
            np.frombuffer(tensor.tensor_content, dtype="<f4")
            if tensor.tensor_content
            else np.array(tensor.float_val, dtype=np.float32)
        )
        if min(shape, default=0) < 0:
            raise ValueError("a negative size")
        if values.size == 1:
            return np.broadcast_to(values.reshape(()), shape)  # a constant is sent as its one value
        return values.reshape(shape)
    except ValueError as error:
        raise RuntimeFailed(
            f"TensorFlow Serving's output {name[:100]!r} has not as many values as its shape {list(shape[:10])} takes."
        ) from error
