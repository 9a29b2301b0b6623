"""An upright RGB picture → the model's input tensor, exactly as `model.yaml` says the model was trained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.images import bilinear
from gateway.images.geometry import Geometry
from modelkit.spec import InputSpec

ImageTensor = NDArray[np.uint8]
"""uint8 [1, height, width, 3], RGB, C order."""

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_MAX_SCALED_PIXELS = 16_000_000
"""A larger picture is not made whole before its middle is cut out: one a million times as wide as high would not fit
into memory. What is cut out of such a strip then differs from torchvision's by rounding."""


def preprocess(image: Image.Image, spec: InputSpec) -> ImageTensor:
    """Fit `image` to `spec`. Scaling and normalisation are in the model's graph, so the tensor stays uint8."""
    return fit(image, spec, Geometry.of(image.size, spec))


def fit(image: Image.Image, spec: InputSpec, geometry: Geometry) -> ImageTensor:
    """The input tensor of `image`, whose geometry for `spec` is `geometry`."""
    scaled = geometry.scaled_width, geometry.scaled_height
    if spec.fit == "crop" and scaled[0] * scaled[1] > _MAX_SCALED_PIXELS:
        middle = (-geometry.left, -geometry.top, spec.width - geometry.left, spec.height - geometry.top)
        scales = (geometry.scale_x, geometry.scale_y) * 2
        box = [edge / scale for edge, scale in zip(middle, scales, strict=True)]
        image = image.resize((spec.width, spec.height), _FILTERS[spec.interpolation], (box[0], box[1], box[2], box[3]))
        return np.asarray(image)[np.newaxis]
    pixels = _resized(image, scaled, spec)
    if spec.fit == "letterbox":
        tensor = np.full((1, spec.height, spec.width, 3), spec.pad, np.uint8)
        tensor[0, geometry.top : geometry.top + scaled[1], geometry.left : geometry.left + scaled[0]] = pixels
        return tensor
    top, left = -geometry.top, -geometry.left
    return np.ascontiguousarray(pixels[np.newaxis, top : top + spec.height, left : left + spec.width])


def _resized(image: Image.Image, size: tuple[int, int], spec: InputSpec) -> NDArray[np.uint8]:
    """Pixels `[height, width, 3]` of `image` at `size` (width, height)."""
    if image.size == size:
        return np.asarray(image)
    if spec.interpolation == "bilinear" and not spec.antialias:
        return bilinear.resize(np.asarray(image), *size)
    return np.asarray(image.resize(size, _FILTERS[spec.interpolation]))
