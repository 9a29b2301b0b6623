"""Whether both runtimes said the same about the same tensor: the figures for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.tasks.boxes import Boxes, match
from gateway.tasks.mask import Mask
from gateway.tasks.matching import Pair
from modelkit.spec import Tolerances


@dataclass(frozen=True)
class Agreement:
    agree: bool
    """Whether both runtimes said the same about every picture, within the model's tolerances."""
    images: int


@dataclass(frozen=True)
class ClassAgreement(Agreement):
    """They say the same about a picture when both name the same best class."""

    same_top1: int
    """Pictures whose best class is the same on both."""
    top_k: int
    """How many of the best classes are compared."""
    mean_top_k_overlap: float
    """Share of them that both name, over the pictures."""
    min_top_k_overlap: float
    max_score_difference: float
    """Greatest difference of any class score on any picture."""


@dataclass(frozen=True)
class BoxAgreement(Agreement):
    """They say the same about a picture when each detection of either has its match among the other's."""

    matched: int
    """Pairs of detections, one of each runtime, of the same class and with boxes that overlap enough (IoU)."""
    unmatched: int
    """Detections of either runtime without a match."""
    f1: float
    """Twice the pairs over all detections of both; 1 where nothing was found."""
    min_f1: float
    """Of the picture where it is least."""
    mean_iou: float | None
    """Intersection over union of the pairs' boxes; None where there is no pair."""
    min_iou: float | None
    max_score_difference: float
    """Greatest difference of a pair's scores."""


@dataclass(frozen=True)
class MaskAgreement(BoxAgreement):
    """They say the same about a picture when, besides, the masks of each pair overlap enough."""

    mask_f1: float
    """As `f1`, of the pairs whose masks overlap enough."""
    min_mask_f1: float
    mean_mask_iou: float | None
    min_mask_iou: float | None


class Compared(NamedTuple):
    agreement: Agreement
    pictures: list[tuple[bool, float]]
    """For each picture: whether both runtimes said the same, and the greatest difference of a score."""


def compare_scores(
    first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]], tolerances: Tolerances
) -> Compared:
    """Each array holds one picture's scores by class id; both sequences are in the order of the pictures."""
    top_k = min(tolerances.top_k, len(first[0]))
    pictures, same_top1, overlaps = [], 0, []
    for a, b in zip(first, second, strict=True):
        same = int(a.argmax()) == int(b.argmax())
        overlap = len(_best(a, top_k) & _best(b, top_k)) / top_k
        difference = float(np.abs(a - b).max())
        pictures.append(
            (same and overlap >= tolerances.min_top_k_overlap and _within(difference, tolerances), difference)
        )
        same_top1 += same
        overlaps.append(overlap)
    agreement = ClassAgreement(
        agree=all(same for same, _ in pictures),
        images=len(pictures),
        same_top1=same_top1,
        top_k=top_k,
        mean_top_k_overlap=float(np.mean(overlaps)),
        min_top_k_overlap=min(overlaps),
        max_score_difference=max(difference for _, difference in pictures),
    )
    return Compared(agreement, pictures)


def compare_boxes(first: Sequence[Boxes], second: Sequence[Boxes], tolerances: Tolerances) -> Compared:
    """Both in the order of the pictures."""
    every = [_Boxes.of(a, b, match(a, b, tolerances.iou)) for a, b in zip(first, second, strict=True)]
    pictures = [
        (each.f1 >= tolerances.min_f1 and _within(each.difference, tolerances), each.difference) for each in every
    ]
    return Compared(BoxAgreement(**_figures(every, pictures)), pictures)


def compare_masks(
    first: Sequence[tuple[Boxes, Sequence[Mask]]],
    second: Sequence[tuple[Boxes, Sequence[Mask]]],
    tolerances: Tolerances,
) -> Compared:
    """As `compare_boxes`, for boxes and their masks: those of the boxes' pairs are compared."""
    every, pictures, ious, f1s, alike = [], [], [], [], 0
    for (a, mine), (b, theirs) in zip(first, second, strict=True):
        pairs = match(a, b, tolerances.iou)
        boxes = _Boxes.of(a, b, pairs)
        overlaps = [mine[i].iou(theirs[j]) for i, j, _ in pairs]
        enough = sum(iou >= tolerances.iou for iou in overlaps)
        f1 = _f1(enough, boxes.detections)
        pictures.append((f1 >= tolerances.min_f1 and _within(boxes.difference, tolerances), boxes.difference))
        every.append(boxes)
        ious += overlaps
        f1s.append(f1)
        alike += enough
    agreement = MaskAgreement(
        **_figures(every, pictures),
        mask_f1=_f1(alike, sum(each.detections for each in every)),
        min_mask_f1=min(f1s),
        mean_mask_iou=_mean(ious),
        min_mask_iou=min(ious, default=None),
    )
    return Compared(agreement, pictures)


@dataclass(frozen=True)
class _Boxes:
    """Two runtimes' boxes of one picture, side by side."""

    detections: int
    """Of both together."""
    ious: list[float]
    """Of the pairs."""
    difference: float
    """Greatest difference of a pair's scores."""

    @classmethod
    def of(cls, first: Boxes, second: Boxes, pairs: Sequence[Pair]) -> _Boxes:
        differences = (abs(float(first.scores[i]) - float(second.scores[j])) for i, j, _ in pairs)
        return cls(len(first) + len(second), [iou for _, _, iou in pairs], max(differences, default=0.0))

    @property
    def f1(self) -> float:
        return _f1(len(self.ious), self.detections)


def _figures(every: Sequence[_Boxes], pictures: Sequence[tuple[bool, float]]) -> dict[str, Any]:
    """The fields of a BoxAgreement."""
    ious = [iou for each in every for iou in each.ious]
    detections = sum(each.detections for each in every)
    return {
        "agree": all(same for same, _ in pictures),
        "images": len(pictures),
        "matched": len(ious),
        "unmatched": detections - 2 * len(ious),
        "f1": _f1(len(ious), detections),
        "min_f1": min(each.f1 for each in every),
        "mean_iou": _mean(ious),
        "min_iou": min(ious, default=None),
        "max_score_difference": max(difference for _, difference in pictures),
    }


def _best(scores: NDArray[np.float32], count: int) -> set[int]:
    """The best classes, of equals the lower class id, as they are answered; many times faster than sorting them."""
    least = np.partition(scores, -count)[-count]
    better = np.flatnonzero(scores > least).tolist()
    return {*better, *np.flatnonzero(scores == least)[: count - len(better)].tolist()}


def _f1(pairs: int, detections: int) -> float:
    return 2 * pairs / detections if detections else 1.0


def _within(difference: float, tolerances: Tolerances) -> bool:
    return tolerances.max_score_difference is None or difference <= tolerances.max_score_difference


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
