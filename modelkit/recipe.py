"""What the maker of a bundled model tells `modelkit`: `models/<name>/recipe.py` holds one `RECIPE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkit.spec import InputSpec, OutputSpec, Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
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
    held_out: Path
    """An .npz of pictures that the model was not trained on: `pictures` (uint8 `[n, h, w]`, grey) and `labels`."""
    minimum_accuracy: float
    """The share of held-out pictures that each artifact must answer right, or the package is refused."""

    def sources(self) -> tuple[Path, ...]:
        """Every file of the model's own that the package depends on."""
        return (*self.code, self.weights, self.held_out)
