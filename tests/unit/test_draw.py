"""Drawn pictures, by their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gateway.images.draw import colour_of, drawn, side_by_side
from gateway.images.geometry import Geometry
from gateway.tasks.base import Found, Limits
from gateway.tasks.classify import Classified
from gateway.tasks.detect import Detected
from gateway.tasks.segment import Segmented
from gateway.tasks.table import TASKS
from modelkit.spec import ModelSpec, Task
from tests.support.packages import digits_spec, segmenter_spec
from tests.unit.test_tasks import candidates, classify, detect, segment, with_masks

GREY = (128, 128, 128)


def grey(width: int = 64, height: int = 64) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


TASK_OF: dict[type, Task] = {Classified: "classify", Detected: "detect", Segmented: "segment"}


def painted(picture: Image.Image, found: Found) -> Image.Image:
    return drawn(picture, TASK_OF[type(found)], found.predictions)


def test_a_box_is_drawn_along_its_edge_in_the_colour_of_its_class() -> None:
    picture = painted(grey(), detect(candidates((10, 30, 50, 60, 0.9, 1))))
    assert picture.size == (64, 64)
    for corner in [(10, 59), (49, 59), (49, 30)]:
        assert picture.getpixel(corner) == colour_of(1)
    for outside_or_inside in [(9, 59), (50, 59), (49, 60), (30, 50)]:
        assert picture.getpixel(outside_or_inside) == GREY


def test_masks_are_translucent_and_only_where_the_object_is() -> None:
    plain = Image.new("RGB", (64, 64), "white")
    plain.paste("black", (0, 0, 64, 50))
    found = segment(with_masks(candidates((10, 30, 50, 60, 0.9, 1)), 1))
    picture = np.asarray(painted(plain, found)).astype(int)
    above, below = picture[45, 30], picture[55, 30]
    assert (above > 0).any()
    assert (below < 255).any()
    assert (below - above == round(255 * 0.55)).all()  # what was there still shows
    assert picture[62, 30].tolist() == [255, 255, 255]


def test_the_given_picture_stays_as_it_was() -> None:
    picture = grey()
    for found in (detect(candidates((0, 0, 64, 64, 0.9, 0))), classify(0.9)):
        painted(picture, found)
    assert np.unique(np.asarray(picture)).tolist() == [128]


def test_classes_are_written_below_the_picture() -> None:
    few, many = painted(grey(200, 100), classify(0.9, most=1)), painted(grey(200, 100), classify(0.9, most=4))
    assert few.width == many.width == 200
    assert 100 < few.height < many.height
    assert np.asarray(few)[:100].tolist() == np.asarray(grey(200, 100)).tolist()
    assert np.asarray(few)[100:].min() < 128  # letters on white


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3000, 8)])
def test_pictures_of_any_shape_can_be_drawn_on(size: tuple[int, int]) -> None:
    geometry = Geometry.of(size, segmenter_spec().input)
    found = segment(with_masks(candidates((0, 0, 64, 64, 0.9, 0)), 1), geometry)
    assert painted(grey(*size), found).size == size
    assert painted(grey(*size), classify(0.9)).height > size[1]


def test_labels_of_any_letters_are_drawn() -> None:
    spec = digits_spec().model_copy(update={"labels": ("Straße", "猫", "", "a\nb", *"456789")})
    assert painted(grey(), found_by(spec)).height > 64


def found_by(spec: ModelSpec) -> Found:
    scores = np.full((1, 10), 0.1, np.float32)
    found: Found = TASKS["classify"].find(spec, {"scores": scores}, Geometry.identity(spec.input), Limits(5, 0))
    return found


def test_neighbouring_classes_have_different_colours() -> None:
    assert len({colour_of(class_id) for class_id in range(80)}) == 80


def test_pictures_side_by_side_keep_their_order_under_their_titles() -> None:
    left, right = Image.new("RGB", (50, 20), "red"), Image.new("RGB", (50, 20), "blue")
    sheet = side_by_side([("one", left), ("a title that is wider than its picture", right)])
    row = np.asarray(sheet)[-10]
    assert row[10].tolist() == [255, 0, 0]
    reds, blues = np.flatnonzero((row == (255, 0, 0)).all(axis=1)), np.flatnonzero((row == (0, 0, 255)).all(axis=1))
    assert len(reds) == len(blues) == 50
    assert reds[-1] < blues[0]
    assert sheet.width > 200
