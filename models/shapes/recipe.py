"""What `modelkit` needs to know to make the model package of the shapes model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelkit.labelled import LabelledPicture
from modelkit.recipe import DetectorRecipe
from modelkit.spec import DetectionSpec, InputSpec, OutputSpec
from models.shapes.outline import LABELS
from models.shapes.scenes import HELD_OUT, draw

_HERE = Path(__file__).parent
_CANDIDATES = 100


def held_out() -> Sequence[LabelledPicture]:
    """The scenes that the model was not trained on."""
    return [draw(seed) for seed in HELD_OUT]


RECIPE = DetectorRecipe(
    name="shapes",
    version=1,
    task="detect",
    labels=LABELS,
    input=InputSpec(height=160, width=160, fit="letterbox", interpolation="bilinear", antialias=True, pad=114),
    outputs={
        "boxes": OutputSpec(shape=(_CANDIDATES, 4), meaning="boxes"),
        "scores": OutputSpec(shape=(_CANDIDATES,), meaning="scores"),
        "classes": OutputSpec(shape=(_CANDIDATES,), meaning="classes"),
        "candidates": OutputSpec(shape=(_CANDIDATES,), meaning="candidates"),
    },
    normalisation="x / 127.5 - 1, each channel",
    licence="Apache-2.0",
    source="models/shapes: trained on scenes that models/shapes/scenes.py draws",
    architecture="models.shapes.architecture",
    code=tuple(_HERE / f"{name}.py" for name in ("recipe", "architecture", "scenes", "outline", "background")),
    weights=_HERE / "shapes.weights.h5",
    detection=DetectionSpec(nms_iou=0.6, min_score=0.4, max_detections=_CANDIDATES),
    candidates=_CANDIDATES,
    held_out=held_out,
    minimum_accuracy=0.7,
)
