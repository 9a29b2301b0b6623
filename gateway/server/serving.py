"""One process that serves the application, until it is told to stop and has answered what it accepted."""

from __future__ import annotations

import asyncio
import gc
import math
import resource
import socket
import sys
from collections.abc import Callable
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits
from uvicorn.config import STARTUP_FAILURE

from gateway.errors import Stopping
from gateway.server.board import Board
from gateway.server.connection import Connection, Limits, State
from gateway.server.listener import Listener, listen, refuse_newcomers
from gateway.server.place import Place
from gateway.server.tls import Certificate
from gateway.settings import Settings, unfilled_batches

_log = structlog.get_logger(__name__)

LAST_CALL_S = 0.3
"""How long the door stays open for those who have begun to connect, once nobody else can."""
_SURPLUS = 64
"""Connections over the limit that are taken to be told so."""
_SWEEP_EVERY = 5
_REFRESH_EVERY = 20
_TICK_S = 0.05
_END_S = 1.0
_OWN_FILES = 512


def serve(make_app: Callable[[Settings], FastAPI], settings: Settings, place: Place | None) -> None:
    """Serve in this process. Raises what `make_app` raises."""
    if place is not None:
        place.share_metrics()
    app = make_app(settings)
    if place is None or place.slot == 0:
        for line in unfilled_batches(settings):
            _log.warning("batches_not_full", detail=line)
    # Masks are small products of matrices, in as many threads as there are CPUs: a second team of threads under each of
    # them makes them several times slower.
    threadpool_limits(1, user_api="blas")
    Server(app, settings, place).run()


class Server(uvicorn.Server):
    """uvicorn's, with connections of our own and a stop that loses nothing."""

    def __init__(self, app: FastAPI, settings: Settings, place: Place | None = None) -> None:
        """`place`: among the processes that share a socket; None: it has one of its own."""
        http = settings.http
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=math.ceil(http.keep_alive_s),
            )
        )
        self._listening: socket.socket
        self._board: Board | None
        if place is None:
            self._listening, self._board = listen(http.host, http.port), None
        else:
            self._listening, self._board = place.open()
        self._place = place
        most = settings.share(http.max_connections)
        limits = Limits(http.header_timeout_s, http.keep_alive_s, http.body_timeout_s, most)
        self.server_state: State = State(limits, app.state.metrics, self._board)
        self._app = app
        self._http = http
        self._certificate = Certificate.of(http)
        _allow_files(most + _SURPLUS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  uvicorn's
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)

        def protocol() -> asyncio.Protocol:
            return Connection(self.config, self.server_state, self.lifespan.state)

        state = self.server_state
        self._listener = Listener(
            self._listening,
            protocol,
            count=lambda: len(state.connections),
            most=state.limits.most + _SURPLUS,
            board=self._board,
            certificate=self._certificate,
        )
        if self._place is not None:
            asyncio.get_running_loop().add_reader(self._place.supervisor, self._orphaned)
        # What stays until the end need not be looked through again and again, while all requests wait.
        gc.collect()
        gc.freeze()
        self.started = True
        _log.info("listening", address=self._listening.getsockname()[:2])

    def _orphaned(self) -> None:
        assert self._place is not None  # noqa: S101  the reader's
        asyncio.get_running_loop().remove_reader(self._place.supervisor)
        _log.error("supervisor_gone", detail="It was killed. Its processes stop, too: start the gateway again.")
        self._place = None
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_EVERY == 0:
            self.server_state.sweep(asyncio.get_running_loop().time())
        if self._certificate is not None and counter % _REFRESH_EVERY == 0:
            self._certificate.refresh()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  uvicorn's
        """Not ready, then closed to new connections, then without any; what is answered meanwhile says so."""
        loop, state = asyncio.get_running_loop(), self.server_state
        _log.info("draining", connections=len(state.connections))
        self._app.state.draining = True
        state.drain(loop.time())
        await self._wait(self._http.drain_delay_s, even_if_empty=True)
        if self._place is None:  # else the supervisor does, for all of them
            refuse_newcomers(self._listening)
        await self._wait(LAST_CALL_S, even_if_empty=True)
        self._listener.close()
        await self._wait(self._http.drain_s)
        if state.connections:
            _log.warning(
                "drain_ended_early",
                connections=len(state.connections),
                detail="Raise TANDEM_HTTP__DRAIN_S if their requests should be answered.",
            )
        error = Stopping(
            "The gateway is stopping and could not answer in time. Send the request again.", retry_after_s=1.0
        )
        for connection in state.open:
            connection.stop(error)
        await self._end_tasks()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _wait(self, seconds: float, *, even_if_empty: bool = False) -> None:
        """Let `seconds` pass, or less where nothing is left to wait for or the user presses Ctrl-C again."""
        loop, state = asyncio.get_running_loop(), self.server_state
        end_s = loop.time() + seconds
        while not self.force_exit and (even_if_empty or state.connections or self._listener.beginning):
            now_s = loop.time()
            if now_s >= end_s:
                return
            state.sweep(now_s)
            await asyncio.sleep(min(_TICK_S, end_s - now_s))

    async def _end_tasks(self) -> None:
        tasks = cast("set[asyncio.Task[None]]", set(self.server_state.tasks))
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=0 if self.force_exit else _END_S)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_END_S)


def _allow_files(connections: int) -> None:
    """Raise the limit of open files as far as may be needed and as the system lets us."""
    needed = connections + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < needed:
        _log.warning(
            "few_files",
            limit=hard,
            detail=f"TANDEM_HTTP__MAX_CONNECTIONS may need {needed} of them. Lower it, or raise ulimit -n.",
        )
