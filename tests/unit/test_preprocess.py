"""The input tensor is what `model.yaml` says, and what training made.

`reference/resized.npz` holds what torchvision and Ultralytics (with OpenCV) make of the same pictures.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gateway.images.geometry import Geometry
from gateway.images.preprocess import preprocess
from modelkit.spec import InputSpec
from tests.reference import RESIZE_CASES, RESIZED, noise
from tests.support.pictures import corners


def test_the_tensor_is_uint8_with_batch_rows_columns_and_rgb() -> None:
    tensor = preprocess(corners(24, 16), InputSpec(height=16, width=24))
    assert tensor.dtype == np.uint8
    assert tensor.shape == (1, 16, 24, 3)
    assert tensor.flags.c_contiguous
    assert tensor[0, 0, 0].tolist() == [255, 0, 0]
    assert np.array_equal(tensor[0], np.asarray(corners(24, 16)))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 5), (24, 16), (640, 480)])
def test_a_stretched_picture_is_the_reference_resize(interpolation: str, size: tuple[int, int]) -> None:
    image = noise(size)
    spec = InputSpec.model_validate({"height": 20, "width": 30, "interpolation": interpolation})
    expected = image.resize((30, 20), getattr(Image.Resampling, interpolation.upper()))
    assert np.array_equal(preprocess(image, spec)[0], np.asarray(expected))


@pytest.mark.parametrize("name", RESIZE_CASES)
def test_each_fit_gives_what_the_library_gives_that_it_is_from(name: str) -> None:
    """Pixel for pixel: also the rounding of sizes, of the middle and of the padding."""
    case = RESIZE_CASES[name]
    tensor = preprocess(noise(case.size), case.input)
    assert tensor.flags.c_contiguous
    with np.load(RESIZED) as reference:
        assert np.array_equal(tensor[0], reference[name])


def test_a_strip_of_extreme_length_is_cut_without_making_it_whole() -> None:
    """Scaled to 64 rows it would have 2 billion pixels."""
    strip = Image.new("RGB", (1_000_000, 2), (9, 99, 199))
    tensor = preprocess(strip, InputSpec(height=48, width=64, fit="crop", shorter_side=64))
    assert tensor.shape == (1, 48, 64, 3)
    assert np.unique(tensor.reshape(-1, 3), axis=0).tolist() == [[9, 99, 199]]


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (333, 77)])
def test_the_geometry_finds_a_marked_pixel_back(fit: str, size: tuple[int, int]) -> None:
    """A box around the middle of the tensor, put into the original, has the tensor's middle as its own."""
    spec = InputSpec.model_validate({"height": 40, "width": 60, "fit": fit, "shorter_side": 60})
    geometry = Geometry.of(size, spec)
    middle = np.array([[29, 19, 31, 21]], np.float32)
    x1, y1, x2, y2 = geometry.to_original(middle)[0].tolist()
    half_pixel_x, half_pixel_y = 1 / geometry.scale_x, 1 / geometry.scale_y  # what rounding may move the middle by
    assert (x1 + x2) / 2 == pytest.approx(size[0] / 2, abs=half_pixel_x)
    assert (y1 + y2) / 2 == pytest.approx(size[1] / 2, abs=half_pixel_y)


def test_boxes_leave_the_padding_and_are_clipped_to_the_original() -> None:
    spec = InputSpec(height=64, width=64, fit="letterbox")
    geometry = Geometry.of((128, 64), spec)  # scaled by a half, 16 rows of padding above and below
    boxes = np.array([[0, 16, 64, 48], [10, 20, 30, 30], [-9, 0, 99, 64], [5, 2, 9, 12]], np.float32)
    assert geometry.to_original(boxes).tolist() == [
        [0, 0, 128, 64],
        [20, 8, 60, 28],
        [0, 0, 128, 64],
        [10, 0, 18, 0],
    ]


def test_the_identity_leaves_boxes_where_they_are() -> None:
    boxes = np.array([[3.25, 4.5, 63.75, 31]], np.float32)
    geometry = Geometry.identity(InputSpec(height=32, width=64, fit="letterbox"))
    assert np.array_equal(geometry.to_original(boxes), boxes)
