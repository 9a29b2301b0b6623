"""Whether both runtimes said the same about the same tensor: the figures for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.tasks.boxes import Boxes, match
from gateway.tasks.mask import Mask


@dataclass(frozen=True)
class Agreement:
    agree: bool
    """Whether both runtimes said the same about every picture."""
    images: int


@dataclass(frozen=True)
class ClassAgreement(Agreement):
    """They say the same about a picture when both name the same best class."""

    same_top1: int
    """Pictures whose best class is the same on both."""
    max_score_difference: float
    """Greatest difference of any class score on any picture."""


@dataclass(frozen=True)
class BoxAgreement(Agreement):
    """They say the same about a picture when each detection of either has its match among the other's."""

    matched: int
    """Pairs of detections, one of each runtime, of the same class and with boxes that overlap by half or more (IoU)."""
    unmatched: int
    """Detections of either runtime without a match."""
    mean_iou: float | None
    """Intersection over union of the pairs' boxes; None where there is no pair."""
    min_iou: float | None
    max_score_difference: float
    """Greatest difference of a pair's scores."""


@dataclass(frozen=True)
class MaskAgreement(BoxAgreement):
    """They say the same about a picture when, besides, the masks of each pair overlap by half or more."""

    mean_mask_iou: float | None
    min_mask_iou: float | None


class Compared(NamedTuple):
    agreement: Agreement
    pictures: list[tuple[bool, float]]
    """For each picture: whether both runtimes said the same, and the greatest difference of a score."""


def compare_scores(first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]) -> Compared:
    """Each array holds one picture's scores by class id; both sequences are in the order of the pictures."""
    pictures = [
        (int(a.argmax()) == int(b.argmax()), float(np.abs(a - b).max())) for a, b in zip(first, second, strict=True)
    ]
    same = sum(same for same, _ in pictures)
    difference = max(difference for _, difference in pictures)
    return Compared(ClassAgreement(same == len(pictures), len(pictures), same, difference), pictures)


def compare_boxes(first: Sequence[Boxes], second: Sequence[Boxes], least_iou: float) -> Compared:
    """Both in the order of the pictures. Boxes match that overlap by `least_iou` or more."""
    pictures, ious, unmatched = [], [], 0
    for a, b in zip(first, second, strict=True):
        pairs = match(a, b, least_iou)
        alone = len(a) + len(b) - 2 * len(pairs)
        difference = max((abs(float(a.scores[i]) - float(b.scores[j])) for i, j, _ in pairs), default=0.0)
        pictures.append((alone == 0, difference))
        ious += [iou for _, _, iou in pairs]
        unmatched += alone
    agreement = BoxAgreement(
        agree=all(same for same, _ in pictures),
        images=len(pictures),
        matched=len(ious),
        unmatched=unmatched,
        mean_iou=_mean(ious),
        min_iou=min(ious, default=None),
        max_score_difference=max(difference for _, difference in pictures),
    )
    return Compared(agreement, pictures)


def compare_masks(
    first: Sequence[tuple[Boxes, Sequence[Mask]]], second: Sequence[tuple[Boxes, Sequence[Mask]]], least_iou: float
) -> Compared:
    """As `compare_boxes`, for boxes and their masks. The masks of a pair must overlap by `least_iou`, too."""
    boxes, pictures = compare_boxes([each for each, _ in first], [each for each, _ in second], least_iou)
    ious = [
        [mine[i].iou(theirs[j]) for i, j, _ in match(a, b, least_iou)]
        for (a, mine), (b, theirs) in zip(first, second, strict=True)
    ]
    pictures = [
        (same and min(each, default=1.0) >= least_iou, difference)
        for (same, difference), each in zip(pictures, ious, strict=True)
    ]
    together = [iou for each in ious for iou in each]
    figures = vars(boxes) | {
        "agree": all(same for same, _ in pictures),
        "mean_mask_iou": _mean(together),
        "min_mask_iou": min(together, default=None),
    }
    return Compared(MaskAgreement(**figures), pictures)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
