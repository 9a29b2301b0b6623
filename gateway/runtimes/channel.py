"""gRPC channels to a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from gateway import spans
from proto.methods import Request, Response, UnaryMethod

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Without these a message over 4 MiB is refused by this end; the workers have limits of their own.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A worker that comes back is found within a second; the default back-off grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A worker that is stopped, not dead, keeps its connection open: only unanswered pings tell.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Two runtimes on one address family must not share a connection's fate.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `address` (host:port). It connects at the first call, and again by itself."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


def traced(
    method: UnaryMethod[Request, Response], channel: grpc.aio.Channel, address: str
) -> Callable[[Request, float], Awaitable[Response]]:
    """The method as a function of the request and its timeout in seconds. Where the inference it is called for is
    traced, the call gets a span and tells the worker which."""
    stub = method.on(channel)

    async def call(request: Request, timeout_s: float) -> Response:
        inference = spans.inference.get()
        if inference is None:
            return await stub(request, timeout=timeout_s)
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
        return response

    return call
