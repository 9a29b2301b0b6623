"""A runtime in the gateway's own process, for faults that a real worker does not make on demand.

The only fake of Tandem. The contract suite holds it to the same behaviour as the real runtimes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from gateway.deadline import Deadline
from gateway.errors import RuntimeFault
from gateway.images.preprocess import ImageTensor
from gateway.runtimes.base import ModelRef, ModelStatus, Tensors
from modelkit.spec import RuntimeName


@dataclass
class FakeRuntime:
    """Answers with the class that the picture's first red value names, modulo 10."""

    name: RuntimeName
    error: Exception | None = None
    """Raised instead of an answer."""
    status_now: ModelStatus = field(default_factory=lambda: ModelStatus("ready"))
    tensors: Tensors | None = None
    """Answered instead."""
    hold: asyncio.Event | None = None
    """Answers wait for it, up to their deadline."""
    offset: int = 0
    """Added to the class: two runtimes that disagree."""
    seen: list[ModelRef] = field(default_factory=list)
    statuses: dict[ModelRef, ModelStatus] = field(default_factory=dict)
    """Said of some models instead of `status_now`."""
    load_error: RuntimeFault | None = None
    """Raised when it is to load something."""
    loads: list[ModelRef] = field(default_factory=list)
    unloads: list[ModelRef] = field(default_factory=list)

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Tensors:
        self.seen.append(model)
        if self.hold is not None:
            async with deadline.guard():
                await self.hold.wait()
        if self.error is not None:
            raise self.error
        if self.tensors is not None:
            return self.tensors
        scores = np.full((1, 10), 0.01, dtype=np.float32)
        scores[0, (int(image[0, 0, 0, 0]) + self.offset) % 10] = 0.91
        return {"scores": scores}

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
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

    async def close(self) -> None:
        return None
