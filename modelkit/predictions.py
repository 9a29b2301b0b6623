"""What two artifacts of one model predict about the pictures of a proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.errors import RuntimeFailed
from gateway.images.geometry import Geometry
from gateway.tasks.base import Found, Limits
from gateway.tasks.table import TASKS
from modelkit.spec import ModelSpec, Tolerances

_GRID = 16
"""Pixels of the input tensor by which boxes must be apart to be different answers."""
_WINDOW = 0.02

Outputs = Mapping[str, npt.NDArray[Any]]
"""By name, each `[pictures, …]`."""


class Said(NamedTuple):
    same: list[bool]
    """For each picture, whether both make the same predictions."""
    distinct: int
    """Different answers over the pictures."""


def of_both(made: ModelSpec, first: Outputs, second: Outputs, least_iou: float) -> Said:
    """What the gateway would answer for each picture, by either artifact, in pixels of the input tensor.

    Boxes and masks are the same that overlap by `least_iou`: two artifacts of one model are closer than two answers
    need be.
    """
    task, geometry = TASKS[made.task], Geometry.identity(made.input)
    same: list[bool] = []
    distinct: set[object] = set()
    for picture in range(len(first["scores"])):
        tensors = [{output: array[picture : picture + 1] for output, array in each.items()} for each in (first, second)]
        limits = task.defaults(made)
        if made.task != "classify":
            limits = Limits(limits.most, _in_a_gap(limits.min_score, [each["scores"] for each in tensors]))
        try:
            found, other = (task.find(made, each, geometry, limits) for each in tensors)
        except RuntimeFailed:  # NaN or infinity: no answer, and never the same as another
            same.append(False)
            continue
        same.append(task.compare([found], [other], Tolerances(iou=least_iou)).pictures[0][0])
        distinct.add(_summary(made, found))
    return Said(same, len(distinct))


def _in_a_gap(min_score: float, scores: list[npt.NDArray[Any]]) -> float:
    """A least score near `min_score` with no candidate's score next to it: rounding must not decide what counts."""
    near = np.concatenate([each.ravel() for each in scores]).astype(np.float64)
    edges = np.sort([min_score, *near[(near > min_score) & (near < min_score + _WINDOW)], min_score + _WINDOW])
    widest = int(np.diff(edges).argmax())
    return float((edges[widest] + edges[widest + 1]) / 2)


def _summary(made: ModelSpec, found: Found) -> object:
    """What makes an answer another one: the best class; the classes and, roughly, places of the boxes."""
    if made.task == "classify":
        return found.predictions[0].class_id if found.predictions else None
    return tuple(
        sorted(
            (each.class_id, *(round(side / _GRID) for side in (each.box.x1, each.box.y1, each.box.x2, each.box.y2)))
            for each in found.predictions
        )
    )
