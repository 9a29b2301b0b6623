"""Classification: class scores → the best classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import RuntimeFailed
from gateway.runtimes.base import Tensors
from modelkit.spec import ModelSpec


@dataclass(frozen=True)
class Classification:
    class_id: int
    label: str
    score: float
    """From 0 to 1."""


def scores_of(spec: ModelSpec, tensors: Tensors) -> NDArray[np.float32]:
    """The scores of one picture, by class id. Raises RuntimeFailed where the tensors are not what `spec` promises."""
    for name, output in spec.outputs.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise RuntimeFailed(f"The runtime's answer lacks the tensor {name!r}; it has {sorted(tensors)}.")
        if tensor.dtype != np.float32 or tensor.shape != (1, *output.shape):
            raise RuntimeFailed(
                f"The runtime's tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, "
                f"not float32 {[1, *output.shape]}."
            )
        if not np.isfinite(tensor).all():
            raise RuntimeFailed(f"The runtime's tensor {name!r} holds NaN or infinite values.")
    scores: NDArray[np.float32] = tensors["scores"][0]
    return scores


def classify(
    scores: NDArray[np.float32], labels: tuple[str, ...], *, top_k: int, min_score: float
) -> list[Classification]:
    """At most `top_k` classes with a score of at least `min_score`, best first; of equals the lower class id first."""
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [
        Classification(int(index), labels[index], round(float(scores[index]), 6))
        for index in best
        if scores[index] >= min_score
    ]
