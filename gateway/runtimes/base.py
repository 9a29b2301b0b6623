"""What both runtimes are to the rest of the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.images.preprocess import ImageTensor
from modelkit.spec import ModelSpec, RuntimeName

Tensors = Mapping[str, NDArray[np.float32]]
"""Named output tensors of one picture, with a batch dimension of 1."""


@dataclass(frozen=True)
class Output:
    """What a worker answers about one picture."""

    tensors: Tensors
    batch: int | None = None
    """Pictures in the batch that the worker made of it and others, where the worker says so."""
    queue_s: float | None = None
    """How long the picture waited in the worker before its batch was computed, in seconds, where the worker says so."""
    inference_s: float | None = None
    """How long the batch was computed, in seconds, where the worker says so."""


@dataclass(frozen=True)
class ModelRef:
    """One version of one model. The gateway always names the version: workers never choose it."""

    name: str
    version: int

    @classmethod
    def of(cls, spec: ModelSpec) -> ModelRef:
        return cls(spec.name, spec.version)

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


State = Literal["ready", "loading", "failed", "unavailable", "absent"]


@dataclass(frozen=True)
class ModelStatus:
    state: State
    """`failed`: the worker runs, the model cannot be loaded. `unavailable`: the worker cannot be reached. `absent`: the
    worker runs and does not have it: it was never told of it, or has unloaded it."""
    reason: str | None = None
    """Why it is not ready, in a sentence."""
    hung: bool = False
    """Whether whoever has it is there and says nothing: once that one speaks again, it is as warm as it was."""


class Runtime(Protocol):
    """A pool of workers of one framework that turns an image tensor into named output tensors."""

    @property
    def name(self) -> RuntimeName: ...

    @property
    def replicas(self) -> int:
        """Workers that are known now: at least 1, so that what is sized by it is never nothing."""
        ...

    def allows(self, model: ModelRef) -> bool:
        """Whether a call for `model` would be tried now: a worker is known, and its circuit lets it through."""
        ...

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        """Raises RuntimeUnavailable, RuntimeFailed, DeadlineExceeded."""
        ...

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
        """Never raises for a worker's fault: that is a status. But it raises DeadlineExceeded where nothing is said."""
        ...

    async def load(self, model: ModelRef, *, deadline: Deadline) -> None:
        """Have the worker load what the serving view holds of `model`. No matter if it has it already.

        `status` tells when it is ready. Raises RuntimeUnavailable, RuntimeFailed, DeadlineExceeded; then `status` says
        `absent` still, or why it failed.
        """
        ...

    async def unload(self, model: ModelRef, *, deadline: Deadline) -> None:
        """Have the worker drop `model`, which has left the serving view. No matter if it does not have it.

        Raises RuntimeUnavailable, RuntimeFailed, DeadlineExceeded where that is not known to have happened.
        """
        ...

    async def scale(self, model: ModelRef, replicas: int, *, deadline: Deadline) -> None:
        """Have each worker compute so many batches of `model` at once, at least one, until the worker starts anew.

        Raises Conflict for a runtime that cannot change that while it runs, RuntimeUnavailable, RuntimeFailed,
        DeadlineExceeded.
        """
        ...

    async def close(self) -> None: ...
