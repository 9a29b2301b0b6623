"""Where a picture lies in the model's input tensor, and the way back from there to the upright original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modelkit.spec import InputSpec


@dataclass(frozen=True)
class Geometry:
    """The picture is scaled to `scaled_width` × `scaled_height`, and its corner put at `left`, `top` of the tensor."""

    width: int
    height: int
    """Of the upright original, in pixels."""
    tensor_width: int
    tensor_height: int
    scaled_width: int
    scaled_height: int
    left: int
    top: int
    """In pixels of the tensor; negative where the picture is cut off, positive where it is padded."""

    @classmethod
    def of(cls, size: tuple[int, int], spec: InputSpec) -> Self:
        """The geometry of a picture of `size` (width, height), rounded as the library rounds that the fit is from."""
        width, height = size
        match spec.fit:
            case "stretch":
                scaled = spec.width, spec.height
                left = top = 0
            case "crop":
                scaled = _scaled_to_shorter_side(width, height, spec.shorter_side or max(spec.width, spec.height))
                # torchvision's CenterCrop: half to even.
                left = -round((scaled[0] - spec.width) / 2)
                top = -round((scaled[1] - spec.height) / 2)
            case "letterbox":
                scale = min(spec.height / height, spec.width / width)
                scaled = max(round(width * scale), 1), max(round(height * scale), 1)
                # Ultralytics' LetterBox: of an odd number of pixels, the greater half lies right and below.
                left, top = (spec.width - scaled[0]) // 2, (spec.height - scaled[1]) // 2
        return cls(width, height, spec.width, spec.height, *scaled, left, top)

    @classmethod
    def identity(cls, spec: InputSpec) -> Self:
        """Of a picture that is the input tensor."""
        return cls(spec.width, spec.height, spec.width, spec.height, spec.width, spec.height, left=0, top=0)

    @property
    def scale_x(self) -> float:
        """x in the tensor is x in the original × scale_x + left."""
        return self.scaled_width / self.width

    @property
    def scale_y(self) -> float:
        return self.scaled_height / self.height

    def to_original(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes `[n, 4]` x1, y1, x2, y2 in pixels of the tensor → in pixels of the original, clipped to it."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        return ((boxes - offset) / scale).clip(0, limit)


def _scaled_to_shorter_side(width: int, height: int, side: int) -> tuple[int, int]:
    """torchvision's Resize: the longer side is cut to a whole number, not rounded."""
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side
