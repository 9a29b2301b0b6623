"""`model.yaml`: what a model package says about its model. Read by the gateway, written by `modelkit`.

    <store>/<name>/<version>/model.yaml    this file
                             torch/  tf/   the artifact of each runtime

Both artifacts take `image: uint8 [batch, height, width, 3]` (RGB, batch free) and return the tensors listed under
`outputs`, with the same names, types and shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Task = Literal["classify"]
RuntimeName = Literal["torch", "tf"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = ("torch", "tf")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class InputSpec(_Part):
    """How a picture becomes the model's input tensor: exactly what the model was trained with."""

    height: int = Field(gt=0)
    """Rows of the input tensor."""
    width: int = Field(gt=0)
    """Columns of the input tensor."""
    fit: Literal["stretch"] = "stretch"
    """`stretch`: height and width scaled independently."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Resampling filter."""
    antialias: Literal[True] = True
    """Shrinking widens the filter, as Pillow and torchvision do."""


class OutputSpec(_Part):
    dtype: Literal["float32"] = "float32"
    shape: tuple[int, ...]
    """Shape for one picture, without the batch dimension."""
    meaning: Literal["softmax"]
    """What the numbers are: `softmax`, class scores that add up to 1."""


class ParityRecord(_Part):
    """What comparing the two artifacts on real pictures gave."""

    pictures: int = Field(gt=0)
    """Pictures compared."""
    same_top1: int = Field(ge=0)
    """Pictures whose best class was the same on both."""
    max_score_difference: float = Field(ge=0)
    """Greatest difference of any score on any picture."""
    distinct_top1: int = Field(ge=0)
    """Different best classes over the pictures: few of them, and agreement proves little."""
    tolerance: float = Field(gt=0)
    """Greatest score difference that passes."""
    correct: dict[RuntimeName, int] = {}
    """Pictures that each runtime answered as they are labelled."""

    @property
    def passed(self) -> bool:
        return self.same_top1 == self.pictures and self.max_score_difference <= self.tolerance


class ArtifactRecord(_Part):
    form: str
    """The export form, e.g. `torchscript-frozen`, `saved_model`."""
    sha256: str
    """Digest of the artifact's files, in order of their paths."""
    candidates_ms: dict[str, float] = {}
    """Milliseconds a picture of one thread, at batch 8, of each form that was tried, on the machine that built it."""


class ModelSpec(_Part):
    name: ModelName
    version: int = Field(ge=1)
    task: Task
    labels: tuple[str, ...] = Field(min_length=1)
    """Names of the classes, by class id."""
    input: InputSpec
    outputs: dict[str, OutputSpec]
    """The tensors both artifacts return."""
    normalisation: str
    """What the graphs do to the uint8 tensor first, in words; it is inside both artifacts."""
    licence: str
    source: str
    """Where the model came from."""
    source_sha256: str
    """Digest of everything the package was built from: a difference means that it must be built again."""
    artifacts: dict[RuntimeName, ArtifactRecord]
    parity: dict[Literal["fp32"], ParityRecord]
    """By precision."""


class InvalidPackage(Exception):
    """A model package that cannot be used. The message names the file and the field."""


def read(package: Path) -> ModelSpec:
    """The spec of the package folder `package`. Raises InvalidPackage."""
    path = package / "model.yaml"
    try:
        return ModelSpec.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise InvalidPackage(f"{path} is missing") from None
    except (yaml.YAMLError, ValidationError) as error:
        raise InvalidPackage(f"{path} is not a valid model.yaml: {error}") from error


def write(spec: ModelSpec, package: Path) -> None:
    """Write `spec` as `model.yaml` into the folder `package`."""
    (package / "model.yaml").write_text(
        yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )
