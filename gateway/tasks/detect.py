"""Detection: candidates in pixels of the input tensor → boxes in pixels of the upright original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gateway.agreement import Compared, compare_boxes
from gateway.errors import RuntimeFailed
from gateway.images.geometry import Geometry
from gateway.runtimes.base import Tensors
from gateway.tasks.base import Limits, Task, checked
from gateway.tasks.boxes import Boxes, suppress
from modelkit.spec import DetectionSpec, ModelSpec, Tolerances


@dataclass(frozen=True)
class Box:
    """In pixels of the upright original, whose upper left corner is (0, 0)."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Detection:
    class_id: int
    label: str
    score: float
    """From 0 to 1."""
    box: Box


@dataclass(frozen=True)
class Detected:
    predictions: list[Detection]
    boxes: Boxes
    """The same detections, not rounded."""


class Detect(Task[Detected]):
    in_thread: ClassVar[bool] = True

    def defaults(self, spec: ModelSpec) -> Limits:
        return detection_limits(spec)

    def find(self, spec: ModelSpec, tensors: Tensors, geometry: Geometry, limits: Limits) -> Detected:
        boxes, _ = choose(spec, checked(spec, tensors), geometry, limits)
        return Detected(detections(spec, boxes), boxes)

    def compare(self, first: Sequence[Detected], second: Sequence[Detected], tolerances: Tolerances) -> Compared:
        return compare_boxes([each.boxes for each in first], [each.boxes for each in second], tolerances)


def detection_limits(spec: ModelSpec) -> Limits:
    """What the package says about its detections."""
    detection = spec.detection or DetectionSpec()
    return Limits(most=detection.max_detections, min_score=detection.min_score)


def choose(
    spec: ModelSpec, tensors: Mapping[str, NDArray[np.float32]], geometry: Geometry, limits: Limits
) -> tuple[Boxes, NDArray[np.intp]]:
    """The candidates that are detections, in pixels of the original, and which of the candidates each one is.

    A detection's score is above `limits.min_score` (not equal to it: as Ultralytics has it), and a part of it lies in
    the picture. Raises RuntimeFailed for a class that the model has not.
    """
    scores = tensors["scores"]
    likely = np.flatnonzero(scores > limits.min_score)
    classes = tensors["classes"][likely]
    if not np.isin(classes, np.arange(len(spec.labels))).all():
        raise RuntimeFailed(
            f"The runtime's tensor 'classes' holds numbers that are no class of the model: 0 to {len(spec.labels) - 1}."
        )
    candidates = Boxes(tensors["boxes"][likely], scores[likely], classes.astype(np.intp))
    max_iou = spec.detection.nms_iou if spec.detection else None
    if max_iou is None:
        kept = np.argsort(-candidates.scores, kind="stable")[: limits.most]
    else:
        kept = suppress(candidates, max_iou, limits.most)
    xyxy = geometry.to_original(candidates.xyxy[kept])
    in_picture = (xyxy[:, :2] < xyxy[:, 2:]).all(axis=1)
    kept, xyxy = kept[in_picture], xyxy[in_picture]
    return Boxes(xyxy, candidates.scores[kept], candidates.classes[kept]), likely[kept]


def detections(spec: ModelSpec, boxes: Boxes) -> list[Detection]:
    """`boxes` as they are answered: scores to 6 digits, pixels to 2."""
    return [
        Detection(class_id, spec.labels[class_id], round(score, 6), Box(*(round(edge, 2) for edge in edges)))
        for class_id, score, edges in zip(
            boxes.classes.tolist(), boxes.scores.tolist(), boxes.xyxy.tolist(), strict=True
        )
    ]
