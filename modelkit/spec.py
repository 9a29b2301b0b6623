"""`model.yaml`: what a model package says about its model. Read by the gateway, written by `modelkit`.

    <store>/<name>/<version>/model.yaml    this file
                             torch/  tf/   the artifact of each runtime

Both artifacts take `image: uint8 [batch, height, width, 3]` (RGB, batch free) and return the tensors listed under
`outputs`, with the same names, types and shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Task = Literal["classify", "detect", "segment"]
RuntimeName = Literal["torch", "tf"]
Precision = Literal["fp32", "bf16", "fp16"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = ("torch", "tf")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class InputSpec(_Part):
    """How a picture becomes the model's input tensor: exactly what the model was trained with."""

    height: int = Field(gt=0)
    """Rows of the input tensor."""
    width: int = Field(gt=0)
    """Columns of the input tensor."""
    fit: Literal["stretch", "crop", "letterbox"] = "stretch"
    """`stretch`: height and width scaled independently. `crop`: the shorter side scaled to `shorter_side`, then the
    middle cut out (torchvision's Resize and CenterCrop). `letterbox`: scaled as a whole until it fits, the rest filled
    with `pad` (Ultralytics' LetterBox)."""
    shorter_side: int | None = Field(None, gt=0)
    """For `crop`: what the picture's shorter side is scaled to, in pixels; at least height and width."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling filter."""
    antialias: bool = True
    """Whether shrinking widens the filter, as Pillow and torchvision do. Without (OpenCV, `tf.image.resize`): only
    bilinear and nearest."""
    pad: int = Field(114, ge=0, le=255)
    """For `letterbox`: grey value of the filling."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.fit == "crop" and (self.shorter_side is None or self.shorter_side < max(self.height, self.width)):
            raise ValueError("fit crop needs a shorter_side of at least height and width")
        if self.interpolation == "bicubic" and not self.antialias:
            raise ValueError("bicubic is only known with antialias")
        return self


OUTPUT_NAMES: dict[Task, tuple[str, ...]] = {
    "classify": ("scores",),
    "detect": ("boxes", "scores", "classes"),
    "segment": ("boxes", "scores", "classes", "coefficients", "prototypes"),
}
"""The tensors that a model of each task returns. A detector may also return `candidates`."""


class OutputSpec(_Part):
    dtype: Literal["float32"] = "float32"
    shape: tuple[int, ...]
    """Shape for one picture, without the batch dimension."""
    meaning: Literal["softmax", "sigmoid", "boxes", "scores", "classes", "candidates", "coefficients", "prototypes"]
    """What the numbers are.

    `softmax`: class scores `[classes]` that add up to 1; `sigmoid`: class scores, each from 0 to 1 by itself.
    `boxes` `[n, 4]`: x1, y1, x2, y2 in pixels of the input tensor, of n candidates, best first; `scores` `[n]` from 0
    to 1; `classes` `[n]`: class ids. `candidates` `[n]`: which of the network's raw candidates each is, so that two
    answers can be compared although near-equal scores changed places. `coefficients` `[n, m]` and `prototypes`
    `[m, h, w]`: a candidate's mask is positive where the sum of the prototypes, weighted by its coefficients, is; h × w
    spans the input tensor."""


class DetectionSpec(_Part):
    """What is left to do about a detector's candidates, the same for both runtimes."""

    nms_iou: float | None = Field(None, gt=0, le=1)
    """Of two candidates of one class that overlap by more than this, the lesser is dropped (non-maximum suppression).
    None: the network's head needs none."""
    min_score: float = Field(0.25, ge=0, le=1)
    """Least score of a detection, where a request does not say."""
    max_detections: int = Field(300, ge=1)
    """Most detections in a picture, where a request does not say."""


class Tolerances(_Part):
    """How far two answers about a picture may be apart that say the same."""

    iou: float = Field(0.5, gt=0, le=1)
    """Least overlap, intersection over union, of two boxes or masks that are the same."""
    min_f1: float = Field(1.0, ge=0, le=1)
    """Least F1 between the two sets of detections: 1 asks that each has its match among the other's."""
    top_k: int = Field(5, ge=1)
    """How many of the best classes are compared, where the model has so many."""
    min_top_k_overlap: float = Field(0.0, ge=0, le=1)
    """Least share of them that both answers name, besides the same best class."""
    max_score_difference: float | None = Field(None, ge=0, le=1)
    """Greatest difference of a class' or a matched detection's score. None: any."""


class OutputDifference(_Part):
    """How far apart the two artifacts' values of one output tensor are, over all pictures."""

    max_difference: float = Field(ge=0)
    """Greatest difference of any value, on any picture."""
    spread: float = Field(ge=0)
    """How much the values differ from picture to picture: the greatest range of any one value."""
    fraction: float = Field(ge=0)
    """The difference as a fraction of the spread: what is held to the tolerance."""
    picture: str
    """The picture on which the difference is greatest."""


class Agreement(_Part):
    """How an artifact in 16 bits agrees with the same runtime's artifact in 32, over the pictures of the proof."""

    agreeing: int = Field(ge=0)
    """Pictures about which both make the same predictions."""
    max_score_difference: float = Field(ge=0)
    """Greatest difference of any score on any picture."""


class ParityRecord(_Part):
    """What comparing the two artifacts on real pictures gave."""

    pictures: int = Field(gt=0)
    """Pictures compared."""
    agreeing: int = Field(ge=0)
    """Pictures about which both make the same predictions: the same best class; the same boxes (and masks)."""
    max_score_difference: float = Field(ge=0)
    """Greatest difference of any score on any picture."""
    distinct: int = Field(ge=0)
    """Different answers over the pictures: few of them, and agreement proves little."""
    outputs: dict[str, OutputDifference]
    """By output tensor."""
    tolerance: float = Field(gt=0)
    """Greatest fraction of the spread that passes."""
    least_agreeing: float = Field(1.0, gt=0, le=1)
    """Least share of the pictures with the same predictions that passes."""
    against_fp32: dict[RuntimeName, Agreement] = {}
    """For packages in 16 bits, by runtime."""
    correct: dict[RuntimeName, int] = {}
    """Pictures that each runtime answered as they are labelled, where labels were given."""
    passed: bool
    """Whether the two are the same model, as far as these pictures tell."""

    @property
    def proves(self) -> bool:
        """Whether the pictures led to enough different answers for agreement to mean something."""
        return self.passed and self.distinct >= HANDFUL


HANDFUL = 5
"""Different answers that a proof needs at least."""


class ArtifactRecord(_Part):
    form: str
    """The export form, e.g. `torchscript-channels-last`, `saved-model-frozen`."""
    sha256: str
    """Digest of the artifact's files, in order of their paths."""
    candidates_ms: dict[str, float] = {}
    """Milliseconds a picture, at batch 8, of each form that was tried, on the machine that built it."""
    compiled_by: str | None = None
    """For a form that was compiled: the version of PyTorch, and the processor, that it runs with."""


class ModelSpec(_Part):
    name: ModelName
    version: int = Field(ge=1)
    task: Task
    labels: tuple[str, ...] = Field(min_length=1)
    """Names of the classes, by class id."""
    input: InputSpec
    outputs: dict[str, OutputSpec]
    """The tensors both artifacts return: those of OUTPUT_NAMES for the task."""
    detection: DetectionSpec | None = None
    """For the tasks `detect` and `segment`."""
    agreement: Tolerances = Tolerances()
    """When two answers agree. What is changed here holds from the next request on."""
    normalisation: str
    """What the graphs do to the uint8 tensor first, in words; it is inside both artifacts."""
    licence: str
    source: str
    """Where the model came from."""
    source_sha256: str
    """Digest of everything the package was built from: a difference means that it must be built again."""
    artifacts: dict[RuntimeName, ArtifactRecord]
    precision: Precision = "fp32"
    """Arithmetic of both artifacts; their inputs are uint8 and their outputs float32 in any."""
    parity: dict[Precision, ParityRecord]
    """By precision: of that one."""
    mismatch_allowed: bool = False
    """The artifacts do not agree, and whoever added the model took it nevertheless (`--allow-mismatch`)."""

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        wanted = set(OUTPUT_NAMES[self.task])
        if not wanted <= set(self.outputs) <= wanted | {"candidates"}:
            raise ValueError(f"a model that can {self.task} returns {sorted(wanted)}, not {sorted(self.outputs)}")
        if (self.detection is None) != (self.task == "classify"):
            raise ValueError(f"detection is for the tasks detect and segment; this model's is {self.task}")
        if self.parity and self.precision not in self.parity:
            raise ValueError(f"its precision is {self.precision}, and its parity is of {', '.join(self.parity)}")
        return self

    @property
    def proof(self) -> ParityRecord:
        """The record of the precision that is served."""
        return self.parity[self.precision]


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
