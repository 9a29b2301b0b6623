"""The table of the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.tasks import base
from gateway.tasks.classify import Classify
from gateway.tasks.detect import Detect
from gateway.tasks.segment import Segment
from modelkit.spec import Task

TASKS: Mapping[Task, base.Task[Any]] = {"classify": Classify(), "detect": Detect(), "segment": Segment()}
