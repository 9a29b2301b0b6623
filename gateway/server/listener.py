"""The socket on which clients arrive, and taking them from it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog

from gateway.server.board import Board
from gateway.server.tls import Certificate

_log = structlog.get_logger(__name__)

_BACKLOG = 2048
_AT_ONCE = 64
_OTHERS_TURN_S = 0.002
_FULL_PAUSE_S = 0.05
_TLS_HANDSHAKE_S = 10.0
_TLS_SHUTDOWN_S = 2.0
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_SO_ATTACH_FILTER = 26
_NO_SYN = (  # classic BPF over the TCP header: drop a segment with SYN and without ACK, keep any other
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Exits with a line that says what is wrong where there cannot be one."""
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        sys.exit(
            f"The gateway cannot listen on {host}:{port} ({error.strerror or error}). "
            "Set TANDEM_HTTP__HOST and TANDEM_HTTP__PORT to an address of this machine that nobody uses."
        )
    listening.setblocking(False)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the connections inherit it
    return listening


def refuse_newcomers(listening: socket.socket) -> None:
    """Have the kernel drop the first segment of every new connection, for all processes that share the socket.

    Whoever is told "connected" by the kernel was not refused by anybody: without this, those who come between the last
    `accept` and `close` would be reset after they have sent a request. A dropped client tries again in a second, and is
    told then that nobody listens, or meets another gateway.
    """
    program = b"".join(struct.pack("=HBBI", *step) for step in _NO_SYN)
    buffer = ctypes.create_string_buffer(program)
    with suppress(OSError):  # where the kernel has no filters, those few moments remain
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(buffer))
        )


class Listener:
    """Takes connections, one by one where processes share the socket: else the first to wake up would take them all."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        count: Callable[[], int],
        most: int,
        board: Board | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """`count`: connections there are now; at `most` the next ones wait in the kernel."""
        self._listening = listening
        self._protocol = protocol
        self._count = count
        self._most = most
        self._board = board
        self._certificate = certificate
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._open = True
        self._loop.add_reader(listening, self._arrived)

    @property
    def beginning(self) -> bool:
        """Whether some were taken whose connection is still being made, as by TLS."""
        return bool(self._beginning)

    def close(self) -> None:
        """Take those who have arrived, and no more."""
        self._open = False
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._listening)
        while self._take():
            pass
        self._listening.close()

    def _arrived(self) -> None:
        present = self._count() + len(self._beginning)
        if present >= self._most:
            self._wait(_FULL_PAUSE_S)
        elif self._board is None:
            for _ in range(min(_AT_ONCE, self._most - present)):
                if not self._take():
                    return
        elif self._board.fewest(present):
            self._take()
        else:  # those with fewer have been woken, too; if they are busy, this one takes it
            self._wait(_OTHERS_TURN_S, self._take)

    def _wait(self, seconds: float, then: Callable[[], object] | None = None) -> None:
        self._loop.remove_reader(self._listening)

        def go_on() -> None:
            self._pause = None
            if then is not None:
                then()
            if self._pause is None and self._open:
                self._loop.add_reader(self._listening, self._arrived)

        self._pause = self._loop.call_later(seconds, go_on)

    def _take(self) -> bool:
        """Whether there was one."""
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.error(
                "connection_not_taken",
                reason=error.strerror,
                detail="Raise the limit of open files (ulimit -n), or lower TANDEM_HTTP__MAX_CONNECTIONS.",
            )
            if self._open and self._pause is None:
                self._wait(_FULL_PAUSE_S)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        return True

    async def _begin(self, connection: socket.socket) -> None:
        try:
            if self._certificate is None:
                await self._loop.connect_accepted_socket(self._protocol, connection)
            else:
                await self._loop.connect_accepted_socket(
                    self._protocol,
                    connection,
                    ssl=self._certificate.context,
                    ssl_handshake_timeout=_TLS_HANDSHAKE_S,
                    ssl_shutdown_timeout=_TLS_SHUTDOWN_S,
                )
        except OSError as error:  # gone already, or no TLS: nobody to answer
            connection.close()
            _log.debug("connection_not_begun", reason=str(error))
