"""Warming a worker up: the way to it is slow at first, above all in TorchServe's JVM."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from gateway.deadline import Deadline
from gateway.runtimes.base import ModelRef, Runtime

_AT_ONCE = 8
_BUDGET_S = 3.0
_TIMEOUT_MS = 30_000


async def warm_up(
    runtime: Runtime,
    model: ModelRef,
    *,
    height: int,
    width: int,
    requests: int,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Have it look at so many black pictures of `model`'s input size, for at most 3 seconds. Raises RuntimeFault."""
    black = np.zeros((1, height, width, 3), dtype=np.uint8)
    end_s = clock() + _BUDGET_S
    left = requests
    while left > 0 and clock() < end_s:
        at_once = min(left, _AT_ONCE)
        deadline = Deadline.after_ms(_TIMEOUT_MS)
        await asyncio.gather(*(runtime.infer(model, black, deadline=deadline) for _ in range(at_once)))
        left -= at_once
