"""What is asked of `tandem models add`, and of `POST /v1/models`: a source, and what its user says about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    model_validator,
)

from modelkit.spec import ModelName, Precision, Task, Tolerances


def _no_text(value: object) -> object:
    """Pydantic would take "1" and true for numbers. Not a strict integer: 1.0 is one, too, in JSON Schema."""
    if isinstance(value, str | bool):
        raise ValueError("it is no number. Send one.")
    return value


def _no_texts(value: object) -> object:
    """Of tolerances. In a package's YAML they may be text: PyYAML takes 1e-4 for some."""
    for name in Tolerances.model_fields:
        if isinstance(value, dict) and isinstance(value.get(name), str | bool):
            raise ValueError(f"{name} is no number. Send one.")
    return value


_MAX_NAME = 255
"""Bytes of a file's or a folder's name, on Linux."""
_MAX_PATH = 2048
"""Bytes, so that it may still be completed to one that Linux takes."""
_NameT = TypeVar("_NameT", str, Path)


def _possible(value: _NameT) -> _NameT:
    """Looking for a file that can have no such name is an error of the system's, not that it is not there."""
    name = os.fsencode(value)
    if b"\0" in name:
        raise ValueError("no file has a zero byte in its name.")
    if len(name) > _MAX_PATH or any(len(part) > _MAX_NAME for part in name.split(b"/")):
        raise ValueError(f"no file has so long a name: at most {_MAX_NAME} bytes, with its folders {_MAX_PATH}.")
    return value


Name = Annotated[str, AfterValidator(_possible)]
FilePath = Annotated[Path, AfterValidator(_possible)]
WholeNumber = Annotated[int, Field(ge=1), BeforeValidator(_no_text)]
Triple = tuple[StrictFloat, StrictFloat, StrictFloat]


class AddRequest(BaseModel):
    """None: as the source says. A source that does not say and a request that does not either is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: Name | None = None
    """`model.keras`, `keras:Name`, `torchvision:name`, `package.module:factory`, `model.pt2`, `model.torchscript`,
    `model.onnx`, or an Ultralytics checkpoint."""
    torch: FilePath | None = None
    """Of a pair: a TorchScript file."""
    tf: FilePath | None = None
    """Of a pair: a SavedModel folder."""
    name: ModelName
    """The model's name."""
    version: WholeNumber | None = None
    """The version; by default one more than the greatest there is."""
    task: Task | None = None
    weights: Name | None = None
    """A file (`.weights.h5` or `.keras` for Keras; `.pt`, `.pth`, `.safetensors` for PyTorch), `imagenet` (Keras),
    `DEFAULT` or another name of torchvision's, or `none`: random."""
    labels: Name | None = None
    """A file with the classes' names, one a line or a JSON list; or `numbers`: named by their ids."""
    height: WholeNumber | None = None
    width: WholeNumber | None = None
    fit: Literal["stretch", "crop", "letterbox"] | None = None
    shorter_side: WholeNumber | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    antialias: StrictBool | None = None
    mean: Triple | None = None
    """Subtracted from pixels of 0 to 1, channel by channel."""
    std: Triple | None = None
    """What they are divided by then."""
    pixels: Literal["0..1", "0..255"] | None = None
    """What mean and std refer to, and without them: the range of the pixels that the network takes."""
    bgr: StrictBool = False
    """The network takes blue, green, red."""
    activation: Literal["none", "softmax", "sigmoid"] | None = None
    """What makes class scores of a classifier's outputs."""
    nms: StrictBool | None = None
    """For a YOLO checkpoint with two heads: the one that needs non-maximum suppression, not the end-to-end one.
    For a pair: whether its candidates need it."""
    agreement: Annotated[Tolerances, BeforeValidator(_no_texts)] = Tolerances()
    """When two answers agree."""
    licence: str | None = None
    samples: FilePath | None = None
    """A folder of pictures for the proof, besides the bundled photographs."""
    precision: Precision | None = None
    """Arithmetic of both artifacts; by default TANDEM_WORKERS__PRECISION."""
    compile: StrictBool = False
    """Try a compiled form for PyTorch besides, which runs on processors like this machine's only."""
    trust: StrictBool = False
    """Code that the source brings along, in pickles or Lambda layers, may be executed."""
    allow_mismatch: StrictBool = False
    """Take the model although its artifacts do not agree, and mark it."""

    def with_absolute_paths(self, folder: Path) -> Self:
        """The same, with every file that is there named from the root: what is relative is meant from `folder`."""

        def absolute(named: str | None) -> str | None:
            return str(folder / named) if named is not None and (folder / named).exists() else named

        return self.model_copy(
            update={
                "source": absolute(self.source),
                "weights": absolute(self.weights),
                "labels": absolute(self.labels),
                **{name: folder / path for name in ("torch", "tf", "samples") if (path := getattr(self, name))},
            }
        )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.source is None) == (self.torch is None and self.tf is None):
            raise ValueError("give one source, or a pair with torch and tf")
        if (self.torch is None) != (self.tf is None):
            raise ValueError("a pair needs both torch and tf")
        return self


class VerifyRequest(BaseModel):
    """What `tandem models verify` asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    version: int = Field(ge=1)
    samples: FilePath | None = None
