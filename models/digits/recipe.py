"""What `modelkit` needs to know to make the model package of the digits model."""

from __future__ import annotations

from pathlib import Path

from modelkit.recipe import Recipe
from modelkit.spec import InputSpec, OutputSpec

_HERE = Path(__file__).parent
INPUT = InputSpec(height=32, width=32, fit="stretch", interpolation="bilinear", antialias=True)

RECIPE = Recipe(
    name="digits",
    version=1,
    task="classify",
    labels=tuple("0123456789"),
    input=INPUT,
    outputs={"scores": OutputSpec(shape=(10,), meaning="softmax")},
    normalisation="x / 127.5 - 1, each channel",
    licence="Apache-2.0 (weights and code); the scans: CC BY 4.0",
    source="models/digits: trained on the UCI optical digits as bundled with scikit-learn",
    architecture="models.digits.architecture",
    code=(_HERE / "recipe.py", _HERE / "architecture.py"),
    weights=_HERE / "digits.weights.h5",
    held_out=_HERE / "held_out.npz",
    minimum_accuracy=0.985,
)
