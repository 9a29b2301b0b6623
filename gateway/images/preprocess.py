"""An upright RGB picture → the model's input tensor, exactly as `model.yaml` says the model was trained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelkit.spec import InputSpec

ImageTensor = NDArray[np.uint8]
"""uint8 [1, height, width, 3], RGB, C order."""

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def preprocess(image: Image.Image, spec: InputSpec) -> ImageTensor:
    """Resize to `spec`. Scaling and normalisation are in the model's graph, so the tensor stays uint8."""
    if image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), _FILTERS[spec.interpolation])
    return np.asarray(image, dtype=np.uint8)[np.newaxis]
