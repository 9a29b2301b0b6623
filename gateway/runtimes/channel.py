"""gRPC channels to a worker."""

from __future__ import annotations

import grpc.aio

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
