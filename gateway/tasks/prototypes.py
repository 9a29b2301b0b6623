"""Prototypes and coefficients → masks at the size of the upright original, computed inside the boxes only.

The steps are those of Ultralytics with `retina_masks`: weigh the prototypes, enlarge them by the least whole factor at
which the letterbox's padding ends on a whole pixel, cut the padding off, resize what is left to the original
(bilinear, no widened filter, as `torch.nn.functional.interpolate`), cut out the box, and take what is positive. Each
step is linear along each axis, so that all of them together are a matrix for the rows and one for the columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.images.geometry import Geometry
from gateway.tasks.mask import Mask

_BLOCK = 256
"""A mask is computed in blocks of so many pixels squared: a block needs few of the prototypes' pixels and little
memory, however large the picture is."""


@dataclass(frozen=True)
class _Axis:
    """One axis of the way from the prototypes to the original."""

    prototypes: int
    """Pixels of the prototypes."""
    enlarged: int
    """Factor of the first step."""
    start: int
    stop: int
    """Where, in enlarged pixels, the picture lies between its padding."""
    scale: float
    """Enlarged pixels for each of the original's."""
    offset: float
    """Where the original's edge lies, in enlarged pixels."""

    def weights(self, first: int, last: int) -> tuple[slice, NDArray[np.float32]]:
        """What the original's pixels from `first` to before `last` are made of: which of the prototypes' pixels, and a
        row of their weights for each pixel."""
        positions = (np.arange(first, last) + 0.5) * self.scale + self.offset - 0.5
        chosen, weights = _between(positions.clip(self.start, self.stop - 1), self.stop)
        if self.enlarged > 1:
            positions = (np.arange(chosen.start, chosen.stop) + 0.5) / self.enlarged - 0.5
            chosen, enlarging = _between(positions.clip(0, self.prototypes - 1), self.prototypes)
            weights = weights @ enlarging
        return chosen, weights


def masks(
    coefficients: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    boxes: NDArray[np.float32],
    geometry: Geometry,
) -> Iterator[Mask]:
    """A mask for each of the boxes `[n, 4]`, in pixels of the original, with coefficients `[n, m]`.

    `prototypes` `[m, h, w]` span the input tensor.
    """
    rows, columns = _axes(prototypes.shape[1], prototypes.shape[2], geometry)
    weighed = (coefficients @ prototypes.reshape(len(prototypes), -1)).reshape(-1, *prototypes.shape[1:])
    for logits, (x1, y1, x2, y2) in zip(weighed, np.ceil(boxes).astype(int).tolist(), strict=True):
        patch = np.zeros((y2 - y1, x2 - x1), dtype=bool, order="F")
        # A narrow strip's blocks are longer, or there would be very many of them.
        high, wide = (max(_BLOCK, _BLOCK**2 // max(side, 1)) for side in (x2 - x1, y2 - y1))
        for x in range(x1, x2, wide):
            beside, across = columns.weights(x, min(x + wide, x2))
            for y in range(y1, y2, high):
                above, down = rows.weights(y, min(y + high, y2))
                block = down @ (logits[above, beside] @ across.T)
                patch[y - y1 :, x - x1 :][:high, :wide] = block > 0
        yield Mask.of(patch, x1, y1, (geometry.width, geometry.height))


def _axes(height: int, width: int, geometry: Geometry) -> tuple[_Axis, _Axis]:
    """For rows and columns of prototypes of `height` × `width`."""
    sides = (
        (height, geometry.tensor_height, geometry.height, geometry.scaled_height, geometry.top),
        (width, geometry.tensor_width, geometry.width, geometry.scaled_width, geometry.left),
    )
    padding = [max(pad, 0) for _, tensor, _, scaled, before in sides for pad in (before, tensor - scaled - before)]
    axes = []
    for prototypes, tensor, original, scaled, before in sides:
        stride, rest = divmod(tensor, prototypes)
        enlarged = 1 if rest or not stride else stride // math.gcd(stride, *padding)
        pixel = tensor / prototypes / enlarged  # an enlarged pixel, in pixels of the tensor
        axes.append(
            _Axis(
                prototypes=prototypes,
                enlarged=enlarged,
                start=round(max(before, 0) / pixel),
                stop=round(min(before + scaled, tensor) / pixel),
                scale=scaled / original / pixel,
                offset=before / pixel,
            )
        )
    return axes[0], axes[1]


def _between(positions: NDArray[np.float64], stop: int) -> tuple[slice, NDArray[np.float32]]:
    """Rising positions among the pixels before `stop` → the pixels around them, and a row of weights for each."""
    lower = positions.astype(np.intp)
    upper = np.minimum(lower + 1, stop - 1)
    first, last = int(lower[0]), int(upper[-1]) + 1
    weights = np.zeros((len(positions), last - first), dtype=np.float32)
    each = np.arange(len(positions))
    weights[each, lower - first] += 1 - (positions - lower)
    weights[each, upper - first] += positions - lower
    return slice(first, last), weights
