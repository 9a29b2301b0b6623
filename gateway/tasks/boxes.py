"""Boxes: how much they overlap, which of them are too many, and which of two runtimes' are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.tasks.matching import Pair, matching

_CLASS_OFFSET = 7680
"""Pixels between the classes' boxes: more than an input tensor is wide. Ultralytics' number, for the same rounding."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture, each with its score and class."""

    xyxy: NDArray[np.float32]
    """`[n, 4]` x1, y1, x2, y2 in pixels."""
    scores: NDArray[np.float32]
    classes: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Boxes:
        """Some of them, by index or by a truth value for each."""
        return Boxes(self.xyxy[chosen], self.scores[chosen], self.classes[chosen])


def iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes `[n, 4]` and `[m, 4]`: `[n, m]`. Without any area: 0."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = (opposite - corner).clip(0).prod(axis=2)
    union = _areas(first)[:, None] + _areas(second) - inside
    ratio: NDArray[np.float32] = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return ratio


def suppress(candidates: Boxes, max_iou: float, most: int) -> NDArray[np.intp]:
    """Greedy non-maximum suppression within each class: the indices of at most `most` boxes that stay, best first.

    A box goes that overlaps a better one of its class by more than `max_iou`; of equal scores the lower index is the
    better one. The steps and the 32-bit arithmetic are those of torchvision's `nms` on boxes moved apart by class, so
    that the result is the same, too.
    """
    moved = candidates.xyxy + (candidates.classes * _CLASS_OFFSET).astype(np.float32)[:, None]
    areas = _areas(moved)
    left = np.argsort(-candidates.scores, kind="stable")
    kept: list[np.intp] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(best)
        others = moved[left]
        sides = np.minimum(moved[best, 2:], others[:, 2:]) - np.maximum(moved[best, :2], others[:, :2])
        inside = sides.clip(0).prod(axis=1)
        union = areas[best] + areas[left] - inside
        with np.errstate(invalid="ignore", divide="ignore"):  # boxes without area suppress none
            left = left[~(inside / union > np.float64(max_iou))]
    return np.array(kept, dtype=np.intp)


def match(first: Boxes, second: Boxes, least_iou: float) -> list[Pair]:
    """Pairs of a box of `first` and one of `second` of the same class, and their IoU of at least `least_iou`: the most
    pairs that there can be, and of those the ones that overlap most."""
    return matching(np.where(first.classes[:, None] == second.classes, iou(first.xyxy, second.xyxy), 0), least_iou)


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas
