"""The measure of the detectors, on detections whose precision is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gateway.tasks.boxes import Boxes
from modelkit.labelled import LabelledPicture
from models.shapes.evaluate import mean_average_precision

TRUTH = [
    LabelledPicture(
        Image.new("RGB", (100, 80)),
        np.array([[10, 10, 30, 30], [50, 20, 90, 60]], dtype=np.float32),
        np.array([0, 1], dtype=np.int64),
    ),
    LabelledPicture(
        Image.new("RGB", (100, 80)), np.array([[0, 0, 40, 40]], dtype=np.float32), np.array([0], dtype=np.int64)
    ),
    LabelledPicture(Image.new("RGB", (100, 80)), np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)),
]


def perfect() -> list[Boxes]:
    return [Boxes(each.boxes.copy(), np.full(len(each.boxes), 0.8, np.float32), each.classes) for each in TRUTH]


def nothing() -> Boxes:
    return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp))


def test_perfect_detections_have_precision_one() -> None:
    assert mean_average_precision(perfect(), TRUTH) == pytest.approx(1)


def test_no_detections_have_precision_zero() -> None:
    assert mean_average_precision([nothing() for _ in TRUTH], TRUTH) == 0


def test_a_shape_that_is_not_found_costs_its_share_of_its_class() -> None:
    found = [perfect()[0], nothing(), nothing()]
    # Of class 0 one of two is found: precision 1 at the 51 of COCO's 101 recalls up to a half; of class 1 all.
    assert mean_average_precision(found, TRUTH) == pytest.approx((51 / 101 + 1) / 2)


def test_a_better_scored_false_detection_costs_precision_also_on_an_empty_picture() -> None:
    found = perfect()
    found[2] = Boxes(np.array([[1, 1, 9, 9]], np.float32), np.array([0.9], np.float32), np.array([1]))
    assert mean_average_precision(found, TRUTH) == pytest.approx((1 + 0.5) / 2)


def test_the_wrong_class_is_no_detection() -> None:
    found = perfect()
    swapped = [Boxes(each.xyxy, each.scores, 1 - each.classes) for each in found]
    assert mean_average_precision(swapped, TRUTH) == 0


def test_boxes_that_are_off_count_only_up_to_the_overlap_that_is_asked_for() -> None:
    found = perfect()
    for each in found:
        each.xyxy[:, 0] += (each.xyxy[:, 2] - each.xyxy[:, 0]) * 0.3  # IoU 0.7
    assert mean_average_precision(found, TRUTH) == pytest.approx(1)
    assert mean_average_precision(found, TRUTH, least_iou=(0.75,)) == 0
    assert mean_average_precision(found, TRUTH, least_iou=(0.5, 0.75)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        (lambda each: each, True),
        (lambda each: each[np.array([1, 0])], True),
        (lambda each: each[np.array([0])], False),
        (lambda each: each[np.array([0, 1, 1])], False),
        (lambda each: Boxes(each.xyxy, each.scores, each.classes[::-1]), False),
        (lambda each: Boxes(each.xyxy + 15, each.scores, each.classes), False),
    ],
    ids=["as it is", "in another order", "one missing", "one twice", "classes exchanged", "moved"],
)
def test_a_picture_is_answered_by_all_that_is_in_it_and_nothing_else(change: object, right: bool) -> None:
    assert callable(change)
    assert TRUTH[0].is_answered_by(change(perfect()[0])) is right


def test_an_empty_picture_is_answered_by_nothing() -> None:
    assert TRUTH[2].is_answered_by(nothing())
    assert not TRUTH[2].is_answered_by(perfect()[1])
