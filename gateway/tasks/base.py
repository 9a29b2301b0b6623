"""What every task is to the rest of the gateway."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.agreement import Compared
from gateway.deadline import Deadline
from gateway.images.geometry import Geometry
from gateway.runtimes import promise
from gateway.runtimes.base import Tensors
from modelkit.spec import ModelSpec, Tolerances


@dataclass(frozen=True)
class Limits:
    """Which of a picture's predictions are answered."""

    most: int
    """Most predictions of a picture, at least 1."""
    min_score: float
    """From 0 to 1."""
    deadline: Deadline | None = None
    """After it nobody waits for them: long work stops with DeadlineExceeded."""


class Found(Protocol):
    """What one runtime found in one picture."""

    @property
    def predictions(self) -> Sequence[Any]:
        """For the answer, best first."""
        ...


FoundT = TypeVar("FoundT", bound=Found)


class Task(ABC, Generic[FoundT]):
    """From a model's output tensors to predictions, and whether two runtimes' predictions agree."""

    in_thread: ClassVar[bool]
    """Whether the work is long enough to be kept off the event loop."""

    @abstractmethod
    def defaults(self, spec: ModelSpec) -> Limits:
        """The limits where a request does not say."""

    @abstractmethod
    def find(self, spec: ModelSpec, tensors: Tensors, geometry: Geometry, limits: Limits) -> FoundT:
        """What `tensors` say of one picture.

        Raises RuntimeFailed where they are not what `spec` promises, and DeadlineExceeded.
        """

    @abstractmethod
    def compare(self, first: Sequence[FoundT], second: Sequence[FoundT], tolerances: Tolerances) -> Compared:
        """Both in the order of the pictures, at least one."""


def checked(spec: ModelSpec, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """One picture's tensors, without the batch dimension.

    Raises RuntimeFailed where they are not what `spec` promises.
    """
    promise.keep(spec, tensors)
    return {name: tensors[name][0] for name in spec.outputs}
