"""What other libraries make of pictures, boxes and masks, and the inputs that they made it of.

`python -m tests.reference.make` writes the files, in an environment with torch, torchvision, ultralytics and
pycocotools. Tandem depends on none of them but the last, for its tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelkit.spec import InputSpec

RESIZED = Path(__file__).parent / "resized.npz"
"""For each of RESIZE_CASES: uint8 `[height, width, 3]`."""
MASKS = Path(__file__).parent / "masks.json"
"""For each of MASK_CASES: `boxes` `[n][4]` in pixels of the original, and `masks` as COCO's run-length encodings."""


@dataclass(frozen=True)
class ResizeCase:
    size: tuple[int, int]
    """Width and height of the original."""
    input: InputSpec


def _crop(width: int, height: int, side: int, interpolation: Literal["nearest", "bilinear", "bicubic"]) -> ResizeCase:
    spec = InputSpec(height=24, width=30, fit="crop", shorter_side=side, interpolation=interpolation)
    return ResizeCase((width, height), spec)


def _letterbox(width: int, height: int, pad: int = 114) -> ResizeCase:
    return ResizeCase((width, height), InputSpec(height=24, width=30, fit="letterbox", antialias=False, pad=pad))


RESIZE_CASES = {
    "crop, wide": _crop(71, 50, 33, "bilinear"),
    "crop, high": _crop(50, 71, 33, "bilinear"),
    "crop, a strip": _crop(33, 200, 33, "bilinear"),
    "crop, enlarged": _crop(1, 3, 33, "bilinear"),
    "crop, bicubic": _crop(64, 47, 30, "bicubic"),
    "crop, odd margin": _crop(31, 30, 31, "bicubic"),
    "crop, nearest": _crop(100, 75, 31, "nearest"),
    "letterbox, wide": _letterbox(97, 41),
    "letterbox, high": _letterbox(41, 97),
    "letterbox, as it is": _letterbox(30, 24),
    "letterbox, enlarged": _letterbox(7, 5),
    "letterbox, one pixel": _letterbox(1, 1),
    "letterbox, a column": _letterbox(1, 90),
    "letterbox, a row": _letterbox(90, 1),
    "letterbox, black": _letterbox(53, 40, pad=0),
}


@dataclass(frozen=True)
class MaskCase:
    size: tuple[int, int]
    """Width and height of the original."""
    tensor: tuple[int, int]
    """Width and height of the input tensor, four times the prototypes'."""

    def inputs(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Boxes `[4, 4]` in pixels of the tensor, coefficients `[4, 3]`, and prototypes `[3, h, w]`."""
        random = np.random.RandomState(0)  # the one whose numbers stay the same from one numpy to the next
        width, height = self.tensor
        corners = random.uniform(-0.2, 1.2, (4, 2, 2))
        corners[0] = [[-0.1, -0.1], [1.1, 1.1]]  # all of the picture, and more
        boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1) * [width, height, width, height]
        coefficients, prototypes = random.normal(size=(4, 3)), random.normal(size=(3, height // 4, width // 4))
        return boxes.astype(np.float32), coefficients.astype(np.float32), prototypes.astype(np.float32)


MASK_CASES = {
    "enlarged, no padding": MaskCase((200, 100), (64, 32)),
    "padding of whole prototype pixels": MaskCase((64, 32), (64, 64)),
    "padding of half prototype pixels": MaskCase((96, 90), (64, 64)),
    "padding of odd pixels": MaskCase((101, 77), (64, 64)),
    "smaller than the prototypes": MaskCase((9, 5), (64, 64)),
    "one pixel": MaskCase((1, 1), (64, 64)),
    "a strip": MaskCase((2, 150), (64, 96)),
}


def noise(size: Sequence[int]) -> Image.Image:
    """The same picture of `size` (width, height) with any numpy."""
    width, height = size
    return Image.frombytes("RGB", (width, height), np.random.RandomState(0).bytes(width * height * 3))
