"""A worker that never answers, to see until when it is waited for.

It speaks for both runtimes on one port: it says that it has every model, takes every picture and answers none.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from proto import tensorflow_serving_pb2 as tfs
from proto import torchserve_management_pb2 as management
from proto.methods import DESCRIBE_MODEL, GET_MODEL_STATUS, PREDICT, PREDICTIONS
from tests.fakes.proxy import AnyMethod, picture_of


@dataclass
class Call:
    """One picture at the worker."""

    came: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Its caller has given it up."""
    ended_s: float = 0.0
    """When, by the monotonic clock."""


class SilentWorker:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._expected: dict[int, Call] = {}

    def expect(self) -> tuple[int, Call]:
        """The call in which a picture comes whose first pixel is that number: red, green, blue."""
        number, call = next(self._numbers), Call()
        self._expected[number] = call
        return number, call

    @asynccontextmanager
    async def open(self, address: str) -> AsyncIterator[None]:
        """It is at `address`, host:port, for the block."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers((AnyMethod(self._answer),))
        server.add_insecure_port(address)
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)

    async def _answer(self, path: str, request: bytes, _: float | None) -> bytes:
        if path == DESCRIBE_MODEL.path:
            said = {"workers": [{"pid": 1, "status": "READY"}], "customizedMetadata": {"state": "ready"}}
            return management.ManagementResponse(msg=json.dumps([said])).SerializeToString()
        if path == GET_MODEL_STATUS.path:
            version = tfs.GetModelStatusRequest.FromString(request).model_spec.version.value
            ready = tfs.ModelVersionStatus(version=version, state=tfs.ModelVersionStatus.State.AVAILABLE)
            return tfs.GetModelStatusResponse(model_version_status=[ready]).SerializeToString()
        assert path in (PREDICT.path, PREDICTIONS.path), path  # nothing else is asked of it
        call = self._expected.pop(int.from_bytes(picture_of(path, request)[:3]), Call())
        call.came.set()
        try:
            await asyncio.Event().wait()
        finally:
            call.ended_s = time.monotonic()
            call.ended.set()
        raise AssertionError("nobody sets it")
