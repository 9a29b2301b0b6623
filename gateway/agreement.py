"""Whether both runtimes said the same about the same tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    images: int
    same_top1: int
    """Images whose best class is the same on both."""
    max_score_difference: float
    """Greatest difference of any class score on any image."""

    @property
    def agree(self) -> bool:
        return self.same_top1 == self.images


def compare_scores(
    first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]
) -> tuple[Agreement, list[tuple[bool, float]]]:
    """The agreement over all images, and for each image whether the best class is the same and the score difference.

    Each array holds one image's scores by class id; both sequences are in the order of the images.
    """
    each = [
        (int(a.argmax()) == int(b.argmax()), float(np.abs(a - b).max())) for a, b in zip(first, second, strict=True)
    ]
    return (
        Agreement(
            images=len(each),
            same_top1=sum(same for same, _ in each),
            max_score_difference=max(difference for _, difference in each),
        ),
        each,
    )
