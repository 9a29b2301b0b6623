"""The table of the tasks, and what a model's tensors say by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.images.geometry import Geometry
from gateway.runtimes.base import Tensors
from gateway.tasks import base
from gateway.tasks.classify import Classify
from gateway.tasks.detect import Detect
from gateway.tasks.segment import Segment
from modelkit.spec import ModelSpec, Task

TASKS: Mapping[Task, base.Task[Any]] = {"classify": Classify(), "detect": Detect(), "segment": Segment()}


def in_tensor_pixels(spec: ModelSpec, tensors: Tensors) -> base.Found:
    """What one picture's `tensors` say, boxes and masks in pixels of the input tensor, within the model's own limits.

    Two of these can be compared: `TASKS[spec.task].compare([one], [other], least_iou=0.99)`. Raises RuntimeFailed
    where the tensors are not what `spec` promises.
    """
    task = TASKS[spec.task]
    found: base.Found = task.find(spec, tensors, Geometry.identity(spec.input), task.defaults(spec))
    return found
