"""The input tensor is what `model.yaml` says, and what training made."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gateway.images.preprocess import preprocess
from modelkit.spec import InputSpec
from tests.support.pictures import corners


def test_the_tensor_is_uint8_with_batch_rows_columns_and_rgb() -> None:
    tensor = preprocess(corners(24, 16), InputSpec(height=16, width=24))
    assert tensor.dtype == np.uint8
    assert tensor.shape == (1, 16, 24, 3)
    assert tensor.flags.c_contiguous
    assert tensor[0, 0, 0].tolist() == [255, 0, 0]
    assert np.array_equal(tensor[0], np.asarray(corners(24, 16)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 5), (24, 16), (640, 480)])
def test_a_stretched_picture_is_the_reference_resize(interpolation: str, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(random)
    spec = InputSpec.model_validate({"height": 20, "width": 30, "interpolation": interpolation})
    expected = image.resize((30, 20), getattr(Image.Resampling, interpolation.upper()))
    assert np.array_equal(preprocess(image, spec)[0], np.asarray(expected))
