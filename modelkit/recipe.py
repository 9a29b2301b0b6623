"""What the maker of a bundled model tells `modelkit`: `models/<name>/recipe.py` holds one `RECIPE`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelkit.labelled import LabelledPicture
from modelkit.spec import DetectionSpec, InputSpec, OutputSpec, Task


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """A Keras model that becomes a model package. Importing it needs neither torch nor tensorflow."""

    name: str
    version: int
    task: Task
    labels: tuple[str, ...]
    input: InputSpec
    outputs: dict[str, OutputSpec]
    normalisation: str
    licence: str
    source: str
    architecture: str
    """Module with `build(data_format)`, which returns the Keras model. Imported in the worker environments."""
    code: tuple[Path, ...]
    """The files that the model is defined in: a change means that the package must be built again."""
    weights: Path
    """A Keras `.weights.h5` file that fits `build` in either data format."""
    minimum_accuracy: float
    """The share of held-out pictures that each artifact must answer right, or the package is refused."""

    def sources(self) -> tuple[Path, ...]:
        """Every file of the model's own that the package depends on."""
        return (*self.code, self.weights)


@dataclass(frozen=True, kw_only=True)
class Recipe(_Recipe):
    """A classifier's."""

    held_out: Path
    """An .npz of pictures that the model was not trained on: `pictures` (uint8 `[n, h, w]`, grey) and `labels`."""

    def sources(self) -> tuple[Path, ...]:
        return (*super().sources(), self.held_out)


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(_Recipe):
    """A detector's. `build` returns raw candidates: `boxes` float32 `[batch, n, 4]`, x1, y1, x2, y2 in pixels of the
    input tensor, and `class_scores` float32 `[batch, n, classes]` from 0 to 1. The exporters add the choice of the best
    `candidates`.
    """

    detection: DetectionSpec
    candidates: int
    """How many candidates leave the graph, best first."""
    held_out: Callable[[], Sequence[LabelledPicture]]
    """Makes the pictures that the model was not trained on, the same each time. One is answered right when all that is
    in it is found with `detection.min_score`, and nothing else is (LabelledPicture.is_answered_by)."""
