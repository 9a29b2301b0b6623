"""One connection of a client: uvicorn's, with an end to everything that a client could draw out.

uvicorn bounds neither the head of a request nor the time that it takes, and closes a connection that has unread bytes:
the kernel then resets it, and the client may lose the answer that was on its way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import BadRequest, HeadTooLarge, RequestTimeout, TandemError, TooManyConnections
from gateway.metrics import Metrics
from gateway.server.board import Board
from gateway.server.refusal import refusal

_log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 32 * 1024
"""Of a request's first line and headers, and of its trailers."""
_MAX_FRAMING_BYTES = 64 * 1024
"""Of a body, besides as many bytes as it has: sizes and extensions of chunks, trailers."""
_MAX_PIPELINED = 16
LINGER_S = 2.0
"""For how long what still comes is read, and thrown away, after the last answer of a connection."""
QUIET_S = 1.0
"""A gateway that is full, or stops, closes connections on which nothing has happened for so long."""


@dataclass(frozen=True)
class Limits:
    header_timeout_s: float
    keep_alive_s: float
    write_timeout_s: float
    most: int
    """Connections at once."""


class State(ServerState):
    """What all connections of the process share."""

    def __init__(self, limits: Limits, metrics: Metrics, board: Board | None = None) -> None:
        super().__init__()
        self.limits = limits
        self.metrics = metrics
        self.draining_since_s: float | None = None
        self._board = board

    @property
    def open(self) -> list[Connection]:
        return cast("list[Connection]", list(self.connections))

    def drain(self, now_s: float) -> None:
        """From now on each connection ends with its next answer."""
        self.draining_since_s = now_s
        for connection in self.open:
            connection.end_after_answer()

    def counted(self) -> None:
        if self._board is not None:
            self._board.post(len(self.connections))

    def sweep(self, now_s: float) -> None:
        """Close connections whose time is over."""
        self.metrics.connections.set(len(self.connections))
        full = len(self.connections) >= self.limits.most
        for connection in self.open:
            connection.sweep(now_s, full=full)


class _Transport:
    """The connection's transport; `close` leaves the client time to read the answer."""

    def __init__(self, real: asyncio.Transport, connection: Connection) -> None:
        self.real = real
        self._connection = connection
        self.write = real.write
        self.abort = real.abort
        self.get_extra_info = real.get_extra_info

    def is_closing(self) -> bool:
        return self._connection.left_at_s is not None or self.real.is_closing()

    def close(self) -> None:
        self._connection.leave()


class Connection(HttpToolsProtocol):
    server_state: State

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.left_at_s: float | None = None
        """When it was given up: what comes since is thrown away."""
        self._since_s = self.loop.time()
        """When it was accepted, or its last answer was complete."""
        self._head_since_s: float | None = None
        """When the head began that is not complete yet."""
        self._head_bytes = 0
        self._head_parsed = 0
        self._in_body = False
        self._body_bytes = 0
        self._framing_bytes = 0
        self._new_body = False
        """Whether a body began in what came last."""
        self._deaf = False
        self._lost = False
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the one that came last."""
        self._surplus = False
        self._wrong: TandemError | None = None

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _Transport(transport, self))
        self._surplus = len(self.connections) > self.server_state.limits.most
        self.server_state.counted()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._unset_keepalive_if_required()
        if self._running is not None and not self._running.response_complete:
            _give_up(self._running)
        super().connection_lost(exc)
        self.server_state.counted()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        in_head, body_before, in_body = self._head_since_s is not None, self._body_bytes, self._in_body
        self._new_body = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._refuse(self._wrong or BadRequest(f"This is no valid HTTP request: {_said(error)}."))
            return
        except httptools.HttpParserUpgrade:  # to nothing that is known here: the request is answered, and that is all
            self._deaf = True
            self.end_after_answer()
            return
        if self._head_since_s is not None:
            # The chunk in which it began may be mostly another request's body.
            self._head_bytes += len(data) if in_head else 0
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())
        elif in_body and self._in_body and not self._new_body:  # else there may be much of another request in it
            self._framing_bytes += len(data) - (self._body_bytes - body_before)
            if self._framing_bytes > _MAX_FRAMING_BYTES + self._body_bytes:
                self._refuse(BadRequest("The body is mostly framing. Send larger chunks, or a Content-Length."))

    # What the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since_s = self.loop.time()
        self._head_bytes = self._head_parsed = 0

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_since_s = None
        if self._surplus:
            self._wrong = TooManyConnections(
                "The gateway has as many connections as it takes. Use fewer at once, or try again later.",
                retry_after_s=1.0,
            )
            raise self._wrong
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._wrong = BadRequest("Too many requests are sent without waiting for the answers.")
            raise self._wrong
        super().on_headers_complete()
        if len(self.pipeline) == 1:  # more of them wait unread, and behind those a hang-up would not be seen
            self.flow.resume_reading()
        self._in_body = True
        self._body_bytes = self._framing_bytes = 0
        self._new_body = True
        if self.server_state.draining_since_s is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _count_head(self, size: int) -> None:
        self._head_parsed += size
        if self._head_parsed > MAX_HEAD_BYTES:
            self._wrong = _head_too_large()
            raise self._wrong

    # What the requests call

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since_s = self.loop.time()
        if self.pipeline:  # or each answer would let in as many more as fit into a read
            self.flow.pause_reading()

    @property
    def answering(self) -> bool:
        """Whether a request has come whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def end_after_answer(self) -> None:
        if self.answering:
            self.cycle.keep_alive = False

    def leave(self) -> None:
        """Close it, so that a client that still sends does not lose what it was answered."""
        real = self._real
        if self._lost or real.is_closing() or not (self._in_body or self._deaf) or not real.can_write_eof():
            real.close()
        elif self.left_at_s is None:
            self.left_at_s = self.loop.time()
            self._deaf = True
            self.flow.resume_reading()
            real.write_eof()

    def stop(self, error: TandemError) -> None:
        """Answer with `error` where no answer has begun, and close."""
        if self.answering and not self.cycle.response_started and not self._real.is_closing():
            _give_up(self.cycle)
            self._real.write(refusal(error))
            self._real.close()
        else:
            self._real.abort()

    def sweep(self, now_s: float, *, full: bool) -> None:
        limits = self.server_state.limits
        if self.left_at_s is not None:
            if now_s - self.left_at_s > LINGER_S:
                self._real.abort()
        elif self._head_since_s is not None:
            if now_s - self._head_since_s > limits.header_timeout_s:
                self._refuse(
                    RequestTimeout(
                        f"The head of the request did not arrive within {limits.header_timeout_s:g} s. Send it faster."
                    )
                )
        elif self.answering:
            pass  # the time-outs of the application hold
        elif self._in_body:
            if now_s - self._since_s > LINGER_S:
                self._real.abort()
        elif self._real.get_write_buffer_size():
            if now_s - self._since_s > limits.write_timeout_s:
                self._real.abort()
        else:
            self._sweep_quiet(now_s, full=full)

    def _sweep_quiet(self, now_s: float, *, full: bool) -> None:
        limits = self.server_state.limits
        patience_s = limits.header_timeout_s if self.cycle is None else limits.keep_alive_s
        since_s, draining_since_s = self._since_s, self.server_state.draining_since_s
        if full or draining_since_s is not None:
            patience_s = min(patience_s, QUIET_S)
        if draining_since_s is not None:
            since_s = max(since_s, draining_since_s)
        if now_s - since_s > patience_s:
            self._real.close()

    @property
    def _real(self) -> asyncio.Transport:
        return cast("_Transport", self.transport).real

    def _refuse(self, error: TandemError) -> None:
        self._deaf = True
        self._head_since_s = None
        self.server_state.metrics.rejected.labels(error.code).inc()
        _log.info("refused", outcome=error.code, detail=str(error))
        if self.answering:
            if self.pipeline or not self._in_body or self.cycle.response_started:
                # What came whole before it is answered first; where to put another answer is not known then.
                if self._in_body:
                    self._real.abort()
                else:
                    self.cycle.keep_alive = False
                return
            _give_up(self.cycle)
        if not self._in_body or self.cycle.disconnected:  # else it has its answer already
            self._real.write(refusal(error))
        self.leave()


def _give_up(request: RequestResponseCycle) -> None:
    """For the application it is as if the client had hung up."""
    request.disconnected = True
    request.message_event.set()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"The head of the request is over {MAX_HEAD_BYTES:,} bytes. Send fewer or shorter headers.")


def _said(error: httptools.HttpParserError) -> str:
    if isinstance(error, httptools.HttpParserCallbackError):
        return "its target cannot be read"
    return str(error).lower().removesuffix(".") or "it cannot be parsed"
