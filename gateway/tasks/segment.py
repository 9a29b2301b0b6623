"""Segmentation: detections, and which pixels of the upright original belong to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gateway.agreement import Compared, compare_masks
from gateway.images.geometry import Geometry
from gateway.runtimes.base import Tensors
from gateway.tasks import prototypes
from gateway.tasks.base import Limits, Task, checked
from gateway.tasks.boxes import Boxes
from gateway.tasks.detect import Box, choose, detection_limits, detections
from gateway.tasks.mask import Mask
from modelkit.spec import ModelSpec, Tolerances


@dataclass(frozen=True)
class EncodedMask:
    """COCO's compressed run-length encoding: what `pycocotools.mask.decode` reads."""

    size: tuple[int, int]
    """Height and width of the upright original."""
    counts: str


@dataclass(frozen=True)
class Segmentation:
    class_id: int
    label: str
    score: float
    """From 0 to 1."""
    box: Box
    mask: EncodedMask


@dataclass(frozen=True)
class Segmented:
    predictions: list[Segmentation]
    boxes: Boxes
    """The same detections, not rounded."""
    masks: list[Mask]


class Segment(Task[Segmented]):
    in_thread: ClassVar[bool] = True

    def defaults(self, spec: ModelSpec) -> Limits:
        return detection_limits(spec)

    def find(self, spec: ModelSpec, tensors: Tensors, geometry: Geometry, limits: Limits) -> Segmented:
        """Detections whose mask has a pixel, as Ultralytics has it."""
        arrays = checked(spec, tensors)
        boxes, chosen = choose(spec, arrays, geometry, limits)
        every = prototypes.masks(arrays["coefficients"][chosen], arrays["prototypes"], boxes.xyxy, geometry)
        kept = []
        for index, mask in enumerate(every):
            if limits.deadline is not None:
                limits.deadline.remaining_s()  # hundreds of masks of a large picture take seconds
            if mask.area:
                kept.append((index, mask))
        boxes, masks = boxes[np.array([index for index, _ in kept], dtype=np.intp)], [mask for _, mask in kept]
        predictions = [
            Segmentation(**vars(detection), mask=EncodedMask((mask.height, mask.width), mask.counts()))
            for detection, mask in zip(detections(spec, boxes), masks, strict=True)
        ]
        return Segmented(predictions, boxes, masks)

    def compare(self, first: Sequence[Segmented], second: Sequence[Segmented], tolerances: Tolerances) -> Compared:
        return compare_masks(
            [(each.boxes, each.masks) for each in first], [(each.boxes, each.masks) for each in second], tolerances
        )
