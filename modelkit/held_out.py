"""The pictures that a bundled model was not trained on, and how many of them an artifact answers right."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.images.geometry import Geometry
from gateway.tasks.detect import Detect
from modelkit import samples
from modelkit.predictions import Outputs
from modelkit.recipe import DetectorRecipe, Recipe
from modelkit.spec import InputSpec, ModelSpec


class HeldOut(NamedTuple):
    tensors: npt.NDArray[np.uint8]
    """`[n, height, width, 3]`, by the gateway's own preprocessing."""
    right: Callable[[ModelSpec, Outputs], int]
    """How many of them the outputs of an artifact answer right."""


def of(recipe: Recipe | DetectorRecipe) -> HeldOut:
    return _scenes(recipe) if isinstance(recipe, DetectorRecipe) else _scans(recipe)


def tensors(pictures: npt.NDArray[np.uint8], input_spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Grey pictures `[n, h, w]` → input tensors `[n, height, width, 3]`, by the gateway's own preprocessing."""
    return samples.tensors([Image.fromarray(picture).convert("RGB") for picture in pictures], input_spec)


def _scans(recipe: Recipe) -> HeldOut:
    with np.load(recipe.held_out) as held_out:
        pictures, labels = held_out["pictures"], held_out["labels"]

    def right(_: ModelSpec, outputs: Outputs) -> int:
        return int((outputs["scores"].argmax(axis=1) == labels).sum())

    return HeldOut(tensors(pictures, recipe.input), right)


def _scenes(recipe: DetectorRecipe) -> HeldOut:
    pictures = recipe.held_out()

    def right(made: ModelSpec, outputs: Outputs) -> int:
        task, count = Detect(), 0
        for number, each in enumerate(pictures):
            own = {name: array[number : number + 1] for name, array in outputs.items()}
            found = task.find(made, own, Geometry.of(each.picture.size, made.input), task.defaults(made))
            count += each.is_answered_by(found.boxes)
        return count

    return HeldOut(samples.tensors([each.picture for each in pictures], recipe.input), right)
