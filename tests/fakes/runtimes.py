"""A runtime in the gateway's own process, for faults that a real worker does not make on demand.

The only fake of Tandem. The contract suite holds it to the same behaviour as the real runtimes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import RuntimeFault
from gateway.images.preprocess import ImageTensor
from gateway.runtimes.base import ModelRef, ModelStatus, Output, Tensors
from modelkit.spec import RuntimeName
from tests.support.packages import CANDIDATES, PROTOTYPES


@dataclass
class FakeRuntime:
    """Answers for `digits` with the class that the picture's first red value names, modulo 10.

    For `shapes` and `outlines` of the tests' packages with a square, a circle, and a candidate below the least score,
    whatever the picture; in `outlines` each fills its box.
    """

    name: RuntimeName
    replicas: int = 1
    error: Exception | None = None
    """Raised instead of an answer."""
    circuit_open: bool = False
    status_now: ModelStatus = field(default_factory=lambda: ModelStatus("ready"))
    tensors: Tensors | None = None
    """Answered instead."""
    batch: int | None = None
    """Pictures in a batch, as it says."""
    queue_s: float | None = None
    inference_s: float | None = None
    """What its answers say of their way through it."""
    hold: asyncio.Event | None = None
    """Answers wait for it, up to their deadline."""
    hold_status: asyncio.Event | None = None
    """So does what it says of its models."""
    latency_s: float = 0.0
    """What each answer takes."""
    offset: int = 0
    """Added to the class, and to the right edge of each box: two runtimes that disagree."""
    offset_of: Callable[[], int] | None = None
    """Gives the offset of each answer anew."""
    seen: list[ModelRef] = field(default_factory=list)
    statuses: dict[ModelRef, ModelStatus] = field(default_factory=dict)
    """Said of some models instead of `status_now`."""
    load_error: RuntimeFault | None = None
    """Raised when it is to load something."""
    loads: list[ModelRef] = field(default_factory=list)
    unloads: list[ModelRef] = field(default_factory=list)
    scale_error: Exception | None = None
    """Raised when it is to scale something."""
    scales: list[tuple[ModelRef, int]] = field(default_factory=list)
    closed: bool = False
    called: Callable[[], object] | None = None
    """Called at the start of each call, when `running` counts it already."""
    running: int = 0
    """Calls under way."""

    def allows(self, model: ModelRef) -> bool:
        return not self.circuit_open

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        self.seen.append(model)
        self.running += 1
        try:
            if self.called is not None:
                self.called()
            tensors = await self._answer(model, image, deadline)
            return Output(tensors, self.batch, self.queue_s, self.inference_s)
        finally:
            self.running -= 1

    async def _answer(self, model: ModelRef, image: ImageTensor, deadline: Deadline) -> Tensors:
        if self.hold is not None:
            async with deadline.guard():
                await self.hold.wait()
        if self.latency_s:
            async with deadline.guard():
                await asyncio.sleep(self.latency_s)
        if self.error is not None:
            raise self.error
        if self.offset_of is not None:
            self.offset = self.offset_of()
        if self.tensors is not None:
            return self.tensors
        if model.name != "digits":
            return self._detections() if model.name == "shapes" else self._detections() | self._masks()
        scores = np.full((1, 10), 0.01, dtype=np.float32)
        scores[0, (int(image[0, 0, 0, 0]) + self.offset) % 10] = 0.91
        return {"scores": scores}

    def _detections(self) -> dict[str, NDArray[np.float32]]:
        boxes = np.zeros((1, CANDIDATES, 4), np.float32)
        boxes[0, :2] = [[8, 16, 24, 32], [40, 32, 56, 48]]
        boxes[0, :2, 2] += self.offset
        scores, classes = np.zeros((2, 1, CANDIDATES), np.float32)
        scores[0, :3], classes[0, 0] = [0.9, 0.6, 0.2], 1
        return {"boxes": boxes, "scores": scores, "classes": classes}

    def _masks(self) -> dict[str, NDArray[np.float32]]:
        coefficients = np.ones((1, CANDIDATES, PROTOTYPES), np.float32)
        return {"coefficients": coefficients, "prototypes": np.ones((1, PROTOTYPES, 16, 16), np.float32)}

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
        if self.hold_status is not None:
            async with deadline.guard():
                await self.hold_status.wait()
        return self.statuses.get(model, self.status_now)

    async def load(self, model: ModelRef, *, deadline: Deadline) -> None:
        self.loads.append(model)
        if self.load_error is not None:
            raise self.load_error
        self.statuses[model] = ModelStatus("ready")

    async def unload(self, model: ModelRef, *, deadline: Deadline) -> None:
        self.unloads.append(model)
        if self.load_error is not None:
            raise self.load_error
        self.statuses[model] = ModelStatus("absent", f"It does not have {model}.")

    async def scale(self, model: ModelRef, replicas: int, *, deadline: Deadline) -> None:
        if self.scale_error is not None:
            raise self.scale_error
        self.scales.append((model, replicas))

    async def close(self) -> None:
        self.closed = True
