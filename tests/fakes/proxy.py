"""A gRPC proxy between the gateway and a real worker, for faults that no worker makes on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from proto import tensorflow_pb2 as tf
from proto.methods import PREDICT, PREDICTIONS

Answer = Callable[[str, bytes, float | None], Awaitable[bytes]]
"""What a method, by its path, answers to a request, within so many seconds. Raises AioRpcError."""
SPOILT = ("silent", "slow", "errors", "wrong shape", "wrong type")

TIMES_SLOWER = 10
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class AnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # at run time it takes no arguments
    """Every unary method there may be, in bytes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = str(details.method)

        async def behave(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            try:
                return await self._answer(path, request, context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise AssertionError("abort raises") from error

        return grpc.unary_unary_rpc_method_handler(behave)


class Proxy:
    """Passes everything on to `target`, host:port."""

    def __init__(self, target: str, port: int) -> None:
        self.spoil: str | None = None
        """One of SPOILT: for `silent` nothing at all is answered any more."""
        self.asked_s: list[float] = []
        """When pictures came, by the monotonic clock, but black ones: those are the gateway's own."""
        self.answered_s: list[float] = []
        """When they were answered, well."""
        self._address = f"127.0.0.1:{port}"
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._server: grpc.aio.Server | None = None

    async def open(self) -> None:
        self._server = grpc.aio.server(options=(*_OPTIONS, ("grpc.so_reuseport", 0)))
        self._server.add_generic_rpc_handlers((AnyMethod(self._pass),))
        self._server.add_insecure_port(self._address)
        await self._server.start()

    async def shut(self) -> None:
        """The port is closed, and what was under way is cut off, until `open`."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def close(self) -> None:
        await self.shut()
        await self._channel.close(grace=None)

    async def _pass(self, path: str, request: bytes, timeout_s: float | None) -> bytes:
        if self.spoil == "silent":
            await asyncio.Event().wait()  # until the client gives up
        inference = path in (PREDICT.path, PREDICTIONS.path)
        users = inference and bool(picture_of(path, request).strip(b"\0"))
        begin_s = time.monotonic()
        if users:
            self.asked_s.append(begin_s)
        ask = self._channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        answer: bytes = await ask(request, timeout=timeout_s)
        if not inference:
            return answer
        match self.spoil:
            case "slow":
                await asyncio.sleep((TIMES_SLOWER - 1) * (time.monotonic() - begin_s))
            case "errors":
                raise _error()
            case "wrong shape":
                return _changed(path, answer, lambda tensor: tensor[:, :-1])
            case "wrong type":
                return _changed(path, answer, lambda tensor: tensor.astype(np.float64))
        if users:
            self.answered_s.append(time.monotonic())
        return answer


def _error() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "It broke, as it was told to.", None)


def picture_of(path: str, request: bytes) -> bytes:
    """The bytes of the tensor in it."""
    if path == PREDICTIONS.path:
        return PREDICTIONS.request.FromString(request).input["image"]
    return PREDICT.request.FromString(request).inputs["image"].tensor_content


def _changed(path: str, answer: bytes, change: Callable[[NDArray[Any]], NDArray[Any]]) -> bytes:
    """The same answer with other tensors."""
    if path == PREDICTIONS.path:
        message = PREDICTIONS.response.FromString(answer)
        tensors = safetensors.numpy.load(message.prediction)
        message.prediction = safetensors.numpy.save({name: change(each).copy() for name, each in tensors.items()})
        return message.SerializeToString()
    reply = PREDICT.response.FromString(answer)
    for tensor in reply.outputs.values():
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        data = (
            np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
        )
        changed = change(data.reshape(shape))
        tensor.Clear()
        tensor.dtype = tf.DT_FLOAT if changed.dtype == np.float32 else tf.DT_DOUBLE
        for size in changed.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = changed.tobytes()
    return reply.SerializeToString()
