"""Classification: class scores → the best classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gateway.agreement import Compared, compare_scores
from gateway.images.geometry import Geometry
from gateway.runtimes.base import Tensors
from gateway.tasks.base import Limits, Task, checked
from modelkit.spec import ModelSpec, Tolerances


@dataclass(frozen=True)
class Classification:
    class_id: int
    label: str
    score: float
    """From 0 to 1."""


@dataclass(frozen=True)
class Classified:
    predictions: list[Classification]
    scores: NDArray[np.float32]
    """Of every class, by class id."""


class Classify(Task[Classified]):
    """The scores may add up to 1 (softmax) or be each by itself (sigmoid): they are answered as they are."""

    in_thread: ClassVar[bool] = False

    def defaults(self, spec: ModelSpec) -> Limits:  # noqa: ARG002  the same for every model
        return Limits(most=5, min_score=0.0)

    def find(
        self,
        spec: ModelSpec,
        tensors: Tensors,
        geometry: Geometry,  # noqa: ARG002  a class is of the whole picture
        limits: Limits,
    ) -> Classified:
        """Classes with a score of at least `limits.min_score`; of equals the lower class id is first."""
        scores = checked(spec, tensors)["scores"]
        best = np.argsort(-scores, kind="stable")[: limits.most]
        predictions = [
            Classification(int(index), spec.labels[index], round(float(scores[index]), 6))
            for index in best
            if scores[index] >= limits.min_score
        ]
        return Classified(predictions, scores)

    def compare(self, first: Sequence[Classified], second: Sequence[Classified], tolerances: Tolerances) -> Compared:
        return compare_scores([each.scores for each in first], [each.scores for each in second], tolerances)
