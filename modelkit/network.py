"""A network on its way from its source to both runtimes: `network.json`, and what stands before and behind it.

    image: uint8 [batch, height, width, 3] → entrance → network → head → the outputs that model.yaml lists

A source's reader writes it, the exporters read it, each in an environment of its own: standard library only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE = "network.json"
Activation = Literal["none", "softmax", "sigmoid"]


@dataclass(frozen=True)
class Entrance:
    """x = (pixel / 255 - mean) / std, channel by channel."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False
    """The network's channels are blue, green, red; mean and std are in that order too."""

    def __str__(self) -> str:
        if self.mean == (0, 0, 0) and self.std == (1, 1, 1):
            text = "x / 255"
        elif self.mean == (0, 0, 0) and all(abs(each - 1 / 255) < 1e-9 for each in self.std):
            text = "none: pixels from 0 to 255"
        else:
            numbers = (", ".join(f"{each:.6g}" for each in values) for values in (self.mean, self.std))
            text = "(x / 255 - [{}]) / [{}]".format(*numbers)
        return text + (", channels blue, green, red" if self.bgr else "")


@dataclass(frozen=True)
class Head:
    """What the network returns, and what is left to do in the graph."""

    kind: Literal["scores", "dense"]
    """`scores`: one tensor `[batch, classes]`. `dense`: raw candidates, and prototypes of masks if `masks` is not 0."""
    activation: Activation = "none"
    """For `scores`: what makes class scores of them."""
    layout: Literal["named", "rows"] = "named"
    """For `dense`. `named`: `boxes` `[batch, n, 4]` and `class_scores` `[batch, n, classes]`, from 0 to 1.
    `rows`: one tensor `[batch, 4 + classes + masks, n]` with all of them, as Ultralytics exports it."""
    box: Literal["xyxy", "xywh"] = "xyxy"
    """Corners; or centre, width and height. In pixels of the input tensor."""
    classes: int = 0
    masks: int = 0
    """Coefficients of a candidate's mask, and prototypes."""
    top_k: int = 300
    """Candidates that leave the graph, best first."""
    pairs: bool = False
    """A candidate is a pair of a box and a class, as with end-to-end heads; else a box and its best class."""


@dataclass(frozen=True)
class Network:
    torch: dict[str, str]
    """Where PyTorch's network is, by kind.

    `{"keras": path}`, with `trust` where its code may run; `{"architecture": module, "weights": path}`;
    `{"script": path}`: TorchScript, float [batch, 3, height, width] → raw outputs; `{"given": path}`: the user's own
    TorchScript, which may also take the pictures themselves, or return the outputs themselves."""
    tf: dict[str, str]
    """The same for TensorFlow: `keras`, `architecture`, `onnx` or `saved_model` (float [batch, height, width, 3] → the
    ONNX outputs in order), `given`."""
    height: int
    width: int
    entrance: Entrance | None = None
    """None: the network takes the pictures themselves."""
    head: Head | None = None
    """None: the network returns the outputs themselves."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the source knows besides: task, labels, input, detection, licence, source."""

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1))


def read(folder: Path) -> Network:
    found = json.loads((folder / FILE).read_text())
    entrance, head = found.pop("entrance"), found.pop("head")
    if entrance is not None:
        entrance = Entrance(mean=tuple(entrance["mean"]), std=tuple(entrance["std"]), bgr=entrance["bgr"])
    return Network(**found, entrance=entrance, head=None if head is None else Head(**head))
