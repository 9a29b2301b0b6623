"""gRPC channels to a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway import spans
from gateway.errors import RuntimeFailed
from gateway.runtimes.tls import Tls
from proto.methods import Request, Response, UnaryMethod

LARGEST_ANSWER_BYTES = 256 << 20
"""More than any model's tensors of one picture: whatever a worker sends, no answer takes more memory."""
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # Without these a message over 4 MiB is refused by this end; the workers have limits of their own.
    ("grpc.max_receive_message_length", LARGEST_ANSWER_BYTES),
    ("grpc.max_send_message_length", -1),
    # A worker that comes back is found within a second; the default back-off grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The kernel gives a connection up whose packets nobody has acknowledged for so long (TCP_USER_TIMEOUT, which gRPC
    # sets from these two). The pings themselves are as rare as both servers put up with: docs/adr/0035.
    ("grpc.keepalive_time_ms", 600_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # Two runtimes on one address family must not share a connection's fate.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel to `address` (host:port). It connects at the first call, and again by itself."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    name = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
    return grpc.aio.secure_channel(address, tls.credentials, options=_OPTIONS + name)


def unary(
    method: UnaryMethod[Request, Response], channel: grpc.aio.Channel
) -> Callable[[Request, float], Awaitable[Response]]:
    """The method as a function of the request and its timeout in seconds.

    It raises AioRpcError, and RuntimeFailed for an answer that is no message of the protocol.
    """
    stub = _stub(method, channel)

    async def call(request: Request, timeout_s: float) -> Response:
        return _read(method, await stub(request, timeout=timeout_s))

    return call


def traced(
    method: UnaryMethod[Request, Response], channel: grpc.aio.Channel, address: str
) -> Callable[[Request, float], Awaitable[Response]]:
    """As `unary`. Where the inference it is called for is traced, the call gets a span and tells the worker which."""
    stub = _stub(method, channel)

    async def call(request: Request, timeout_s: float) -> Response:
        inference = spans.inference.get()
        if inference is None:
            return _read(method, await stub(request, timeout=timeout_s))
        span = inference.call(method.path, address)
        code, failed = grpc.StatusCode.UNKNOWN, True
        try:
            response = await stub(request, timeout=timeout_s, metadata=span.metadata)
            code, failed = grpc.StatusCode.OK, False
        except grpc.aio.AioRpcError as error:
            code = error.code()
            raise
        except asyncio.CancelledError:  # nobody waits for it any more: not the worker's failure
            code, failed = grpc.StatusCode.CANCELLED, False
            raise
        finally:
            span.end(code.value[0], code.name if failed else None)
        return _read(method, response)

    return call


def _stub(
    method: UnaryMethod[Request, Response], channel: grpc.aio.Channel
) -> grpc.aio.UnaryUnaryMultiCallable[Request, bytes]:
    # The answer stays bytes: of what cannot be read, gRPC would make None.
    return channel.unary_unary(
        method.path, request_serializer=method.request.SerializeToString, response_deserializer=None
    )


def _read(method: UnaryMethod[Request, Response], answer: bytes) -> Response:
    try:
        return method.response.FromString(answer)
    except DecodeError as error:
        raise RuntimeFailed("The worker's answer is no message of its protocol; its log may say why.") from error
