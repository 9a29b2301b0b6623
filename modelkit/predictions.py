"""What both artifacts predict about the pictures of a proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelkit.spec import RUNTIME_NAMES, ModelSpec, RuntimeName

Outputs = Mapping[str, npt.NDArray[Any]]


class Said(NamedTuple):
    same: list[bool]
    """For each picture, whether both make the same predictions."""
    distinct: int
    """Different answers over the pictures."""


def of_both(_made: ModelSpec, answers: Mapping[RuntimeName, Outputs]) -> Said:
    best = [answers[name]["scores"].argmax(axis=1) for name in RUNTIME_NAMES]
    return Said([bool(each) for each in best[0] == best[1]], len(np.unique(best[0])))
