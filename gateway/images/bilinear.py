"""Bilinear resizing without a widened filter: what OpenCV's INTER_LINEAR gives for 8-bit pictures, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 11
"""OpenCV weighs in fixed point: a weight of 1 is 2 ** 11."""
_ONE = 1 << _BITS


def resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`[h, w, channels]` → `[height, width, channels]`, each value between its four nearest; edges are repeated."""
    rows, columns, channels = pixels.shape
    left, right, weight_x = _neighbours(columns, width)
    above, below, weight_y = _neighbours(rows, height)
    # Each row that is needed is resized once, also where several rows of the result are made of it.
    needed, places = np.unique(np.concatenate((above, below)), return_inverse=True)
    flat = pixels.reshape(rows, columns * channels)
    if len(needed) < rows:
        flat = flat[needed]

    def across(of: NDArray[np.intp]) -> NDArray[np.int32]:
        taken: NDArray[np.uint8] = flat.take((of[:, None] * channels + np.arange(channels)).ravel(), axis=1)
        return taken.astype(np.int32)

    resized, other = across(left), across(right)
    other -= resized
    other *= np.repeat(weight_x, channels)
    resized <<= _BITS
    resized += other
    resized >>= 4  # OpenCV's own steps of rounding, here and below
    result, other = resized[places[:height]], resized[places[height:]]
    result *= (_ONE - weight_y)[:, None]
    result >>= 16
    other *= weight_y[:, None]
    other >>= 16
    result += other
    result += 2
    result >>= 2
    return result.astype(np.uint8).reshape(height, width, channels)


def _neighbours(of: int, to: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """For each of `to` places along an axis of `of` pixels: the pixels before and after it, and the latter's weight."""
    # Pixels have their middle at a half.
    positions = ((np.arange(to) + 0.5) * (of / to) - 0.5).astype(np.float32)
    before = np.floor(positions)
    weight = np.rint((positions - before) * _ONE).astype(np.int32)
    first = before.astype(np.intp)
    return first.clip(0, of - 1), (first + 1).clip(0, of - 1), weight
