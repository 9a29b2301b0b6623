"""What a worker says of its part of the stage `rpc`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # who only reads the request log has no use for pictures
    from gateway.runtimes.base import Output

WorkerPart = Literal["queue", "inference"]


@dataclass(frozen=True, slots=True)
class WorkerTimes:
    """Of the pictures of one request, the longest of each. None where the worker does not say so."""

    queue_s: float | None = None
    """How long a picture waited in the worker before its batch was computed."""
    inference_s: float | None = None
    """How long its batch was computed."""
    batch: int | None = None
    """Pictures in the batch."""

    @classmethod
    def of(cls, outputs: Sequence[Output]) -> WorkerTimes:
        return cls(
            max((each.queue_s for each in outputs if each.queue_s is not None), default=None),
            max((each.inference_s for each in outputs if each.inference_s is not None), default=None),
            max((each.batch for each in outputs if each.batch is not None), default=None),
        )

    def ms(self) -> dict[WorkerPart, float]:
        """Milliseconds of each part that is known."""
        parts: tuple[tuple[WorkerPart, float | None], ...] = (("queue", self.queue_s), ("inference", self.inference_s))
        return {part: round(seconds * 1000, 3) for part, seconds in parts if seconds is not None}


UNKNOWN = WorkerTimes()
"""Where nobody was asked, or nothing was said."""
