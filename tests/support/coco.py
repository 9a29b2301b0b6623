"""COCO's own reading of masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


def decoded(size: Sequence[int], counts: str) -> NDArray[np.bool_]:
    """`[height, width]`, for a `size` of both."""
    with warnings.catch_warnings():
        # pycocotools 2.0.11 has not heard of the parameter `copy` that NumPy 2 gives to __array__.
        warnings.simplefilter("ignore", DeprecationWarning)
        pixels: NDArray[np.uint8] = coco.decode({"size": list(size), "counts": counts})
    return pixels.astype(bool)
