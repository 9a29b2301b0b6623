"""TorchServe over gRPC.

TorchServe carries bare bytes: the request is the tensor's bytes, the answer a safetensors buffer of named tensors.
An item's own error travels in that buffer's metadata, because an exception in the handler would fail its whole batch.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import safetensors
import safetensors.numpy

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, RuntimeFailed, RuntimeFault, RuntimeUnavailable
from gateway.images.preprocess import ImageTensor
from gateway.runtimes.base import ModelRef, ModelStatus, Output
from gateway.runtimes.channel import open_channel, traced, unary
from gateway.runtimes.tls import Tls
from gateway.settings import TorchSettings
from modelkit.spec import RuntimeName
from proto import methods
from proto import torchserve_inference_pb2 as inference
from proto import torchserve_management_pb2 as management


class TorchRuntime:
    name: RuntimeName = "torch"
    replicas = 1

    def __init__(self, settings: TorchSettings, tls: Tls | None = None) -> None:
        """`settings` with one address."""
        self._channel = open_channel(settings.address, tls)
        self._management_channel = open_channel(settings.management_address, tls)
        self._predictions = traced(methods.PREDICTIONS, self._channel, settings.address)
        self._describe = unary(methods.DESCRIBE_MODEL, self._management_channel)
        self._register = unary(methods.REGISTER_MODEL, self._management_channel)
        self._unregister = unary(methods.UNREGISTER_MODEL, self._management_channel)
        self._set_default = unary(methods.SET_DEFAULT, self._management_channel)
        self._scale = unary(methods.SCALE_WORKER, self._management_channel)
        self._loaded: dict[ModelRef, frozenset[int]] = {}

    def allows(self, model: ModelRef) -> bool:  # noqa: ARG002
        return True  # one worker by itself has no circuit

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        request = to_request(model, image, sent_ns=time.time_ns())
        begin_s = time.perf_counter()
        try:
            response = await self._predictions(request, deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            raise translate(model, error, late=deadline.passed) from error
        return from_response(model, response, rpc_s=time.perf_counter() - begin_s)

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
        try:
            workers = ready_workers(await self._description(model, customized=False, deadline=deadline))
            if not workers:
                return ModelStatus("loading", f"TorchServe is starting the workers of {model}.")
            if self._loaded.get(model) != workers:
                # Only the handler knows whether the model loaded. Asking it takes a place in its queue, so it is asked
                # once for each set of worker processes.
                description = await self._description(model, customized=True, deadline=deadline)
                if (status := handler_status(model, description)).state != "ready":
                    return status
                self._loaded[model] = workers
        except grpc.aio.AioRpcError as error:
            if _not_found(error):
                return ModelStatus("absent", f"TorchServe does not have {model}.")
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise translate(model, error) from error
            return ModelStatus("unavailable", f"TorchServe cannot be reached: {error.details()}")
        return ModelStatus("ready")

    async def load(self, model: ModelRef, *, deadline: Deadline) -> None:
        # Batch size and delay are in the archive, the number of Python workers in the server's configuration.
        request = management.RegisterModelRequest(url=_archive(model), model_name=model.name)
        try:
            if str(model.version) in await self._versions(model, deadline):
                return
            try:
                await self._register(request, deadline.remaining_s())
            except grpc.aio.AioRpcError:
                if str(model.version) not in await self._versions(model, deadline):
                    raise
                return  # another gateway process was first
            if str(model.version) not in await self._versions(model, deadline):
                # It takes any file, calls what it cannot read version 1.0, and tries to start that again and again.
                damaged = management.UnregisterModelRequest(model_name=model.name, model_version="1.0")
                await self._unregister(damaged, deadline.remaining_s())
                raise RuntimeFailed(
                    f"TorchServe cannot read {_archive(model)}: it is damaged. Remove {model} and add it again."
                )
        except grpc.aio.AioRpcError as error:
            raise management_fault(model, error) from error

    async def unload(self, model: ModelRef, *, deadline: Deadline) -> None:
        self._loaded.pop(model, None)
        try:
            versions = await self._versions(model, deadline)
            if str(model.version) not in versions:
                return
            # It does not let its own default version go while there are others. Nothing of ours asks for that default.
            if others := [version for version in versions if version != str(model.version)]:
                request = management.SetDefaultRequest(model_name=model.name, model_version=others[-1])
                await self._set_default(request, deadline.remaining_s())
            gone = management.UnregisterModelRequest(model_name=model.name, model_version=str(model.version))
            await self._unregister(gone, deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            if not _not_found(error):
                raise management_fault(model, error) from error

    async def scale(self, model: ModelRef, replicas: int, *, deadline: Deadline) -> None:
        request = management.ScaleWorkerRequest(
            model_name=model.name,
            model_version=str(model.version),
            min_worker=replicas,
            max_worker=replicas,
            synchronous=True,  # the answer comes when the new processes have loaded the model
        )
        try:
            await self._scale(request, deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            if _not_found(error):
                raise RuntimeUnavailable(f"TorchServe does not have {model}. See /readyz for the reason.") from error
            raise management_fault(model, error) from error

    async def _versions(self, model: ModelRef, deadline: Deadline) -> list[str]:
        """Every version that TorchServe has of the model."""
        request = management.DescribeModelRequest(model_name=model.name, model_version="all")
        try:
            response = await self._describe(request, deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            if _not_found(error):
                return []
            raise
        return [str(each.get("modelVersion")) for each in _descriptions(response)]

    async def _description(self, model: ModelRef, *, customized: bool, deadline: Deadline) -> dict[str, Any]:
        request = management.DescribeModelRequest(
            model_name=model.name, model_version=str(model.version), customized=customized
        )
        return _descriptions(await self._describe(request, deadline.remaining_s()))[0]

    async def close(self) -> None:
        await self._channel.close(grace=None)
        await self._management_channel.close(grace=None)


def to_request(model: ModelRef, image: ImageTensor, *, sent_ns: int) -> inference.PredictionsRequest:
    """`sent_ns`: now, in nanoseconds since 1970. TorchServe tells the handler nothing of when a request came."""
    return inference.PredictionsRequest(
        model_name=model.name,
        model_version=str(model.version),
        input={"image": image.tobytes(), "sent_ns": b"%d" % sent_ns},
    )


def from_response(model: ModelRef, response: inference.PredictionResponse, *, rpc_s: float) -> Output:
    """`rpc_s`: how long the call took.

    Raises RuntimeUnavailable or RuntimeFailed for an item's own error, and RuntimeFailed for a broken buffer.
    """
    buffer = response.prediction
    try:
        metadata = _metadata(buffer)
        tensors = safetensors.numpy.load(buffer)
    except (ValueError, KeyError, struct.error, RecursionError, safetensors.SafetensorError) as error:
        raise RuntimeFailed(f"TorchServe's answer is not a safetensors buffer: {str(error)[:200]}") from error
    if (message := metadata.get("error")) is None:
        batch, queue_s, inference_s = (
            _batch(metadata),
            _seconds(metadata, "queue_ms"),
            _seconds(metadata, "inference_ms"),
        )
        if queue_s is not None and inference_s is not None:
            # By the clocks of two machines, which may differ: it cannot have waited for longer than the call took.
            queue_s = min(queue_s, max(0.0, rpc_s - inference_s))
        return Output(tensors, batch, queue_s=queue_s, inference_s=inference_s)
    if metadata.get("code") == "model_not_loaded":
        raise RuntimeUnavailable(f"TorchServe could not load {model}. See /readyz for the reason.")
    raise RuntimeFailed(f"TorchServe failed: {str(message)[:500]}")


def _metadata(buffer: bytes) -> Mapping[str, object]:
    # Format: 8 bytes, little endian, the length of a JSON header; the header; the tensors. The library's reader of
    # buffers drops the header's __metadata__. https://huggingface.co/docs/safetensors/index#format
    (length,) = struct.unpack_from("<Q", buffer)
    header = json.loads(buffer[8 : 8 + length])
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("its header is no object, or has no object as its metadata")
    return metadata


def _batch(metadata: Mapping[str, object]) -> int | None:
    """Pictures in the batch, as the handler says; None where it says nothing, or no number."""
    said = str(metadata.get("batch_size"))
    return int(said) if said.isdecimal() and len(said) < 10 else None


def _seconds(metadata: Mapping[str, object], name: str) -> float | None:
    """What the handler says in milliseconds; None where it says nothing, or no time: that fails no answer."""
    try:
        seconds = float(str(metadata[name])) / 1000
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _descriptions(response: management.ManagementResponse) -> list[dict[str, Any]]:
    """DescribeModel's answer, one of each version, at least one. Raises RuntimeFailed for anything else."""
    try:
        said = json.loads(response.msg)
    except (ValueError, RecursionError) as error:
        raise RuntimeFailed("TorchServe's description of a model is no JSON.") from error
    if not isinstance(said, list) or not said or not all(isinstance(each, dict) for each in said):
        raise RuntimeFailed("TorchServe's description of a model is not one.")
    return said


def ready_workers(description: dict[str, Any]) -> frozenset[int]:
    """Process ids of the workers that TorchServe's DescribeModel calls ready."""
    workers = [each for each in description.get("workers") or () if isinstance(each, dict)]
    return frozenset(each.get("pid", 0) for each in workers if each.get("status") == "READY")


def handler_status(model: ModelRef, description: dict[str, Any]) -> ModelStatus:
    """What the handler itself says, in DescribeModel's `customizedMetadata`."""
    said = description.get("customizedMetadata")
    if not isinstance(said, dict):
        said = {}
    if said.get("state") == "ready":
        return ModelStatus("ready")
    return ModelStatus(
        "failed", f"TorchServe could not load {model}: {said.get('reason', 'the handler does not say why')}"
    )


def management_fault(model: ModelRef, error: grpc.aio.AioRpcError) -> RuntimeFault:
    """What TorchServe, or the way to it, means by the error of a change. `error` keeps the details, for the log."""
    details = error.details() or "it does not say why; its log does"  # so it is for every exception of its own
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"TorchServe did not change {model} before the deadline.")
        case grpc.StatusCode.UNAVAILABLE:
            return RuntimeUnavailable("TorchServe cannot be reached.")
        case _ if "ModelNotFoundException" in details and "Model not found at" in details:
            return RuntimeUnavailable(
                f"{_archive(model)} is not in TorchServe's view. `python -m modelkit build` puts it there."
            )
        case code:
            return RuntimeFailed(f"TorchServe refused to change {model} ({code.name}): {details.splitlines()[0]}")


def _archive(model: ModelRef) -> str:
    """The file of the serving view that TorchServe loads it from."""
    return f"{model.name}-{model.version}.mar"


def _not_found(error: grpc.aio.AioRpcError) -> bool:
    # DescribeModel says INTERNAL for what it does not know, where it was to ask the handler too.
    return error.code() == grpc.StatusCode.NOT_FOUND or "NotFoundException" in (error.details() or "")


def translate(model: ModelRef, error: grpc.aio.AioRpcError, *, late: bool = False) -> RuntimeFault:
    """What TorchServe, or the way to it, means by a status code. `error` keeps the details, for the log.

    `late`: the deadline has passed. The worker knows it, too, and what it says then can be here before this end's own
    gRPC has noticed.
    """
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("TorchServe did not answer before the deadline.")
        case grpc.StatusCode.CANCELLED if late:
            return DeadlineExceeded("TorchServe did not answer before the deadline.")
        case grpc.StatusCode.UNAVAILABLE:  # not reachable, or it stopped while it answered
            return RuntimeUnavailable("TorchServe cannot take requests now. Try again later.")
        # TorchServe says nearly everything with one code: only the text tells.
        case _ if "NotFoundException" in details:  # "Model not found: x", "Model version: 7 does not exist for …"
            return RuntimeUnavailable(f"TorchServe does not have {model} loaded. See /readyz for the reason.")
        case _ if "has no worker to serve" in details:  # also when its queue is full
            return RuntimeUnavailable("TorchServe has too much to do. Try again later.")
        case _ if "Worker died" in details:
            return RuntimeUnavailable("A TorchServe worker process ended while it answered. Try again.")
        case code:
            return RuntimeFailed(f"TorchServe failed on this picture ({code.name}).")
