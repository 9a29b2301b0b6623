"""What the watch over a client leaves behind; what it does is in tests/http/test_hang_up.py."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import NoReturn

import pytest
from starlette.requests import Request

from gateway.http.presence import Presence

pytestmark = pytest.mark.anyio


async def test_a_request_leaves_no_garbage_that_only_a_collection_would_find() -> None:
    async def receive() -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError("the client stays")

    presence = Presence(Request({"type": "http"}, receive))
    left = weakref.ref(presence)
    gc.disable()
    try:
        with presence:
            await asyncio.sleep(0)
        del presence
        for _ in range(3):  # the watch is told that it ends, and ends
            await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()
