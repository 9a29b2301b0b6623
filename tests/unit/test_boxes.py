"""Boxes: overlap, non-maximum suppression, and matching."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.tasks.boxes import Boxes, iou, match, suppress


def boxes(*xyxy: tuple[float, float, float, float], scores: object = None, classes: object = None) -> Boxes:
    count = len(xyxy)
    return Boxes(
        np.array(xyxy, np.float32).reshape(count, 4),
        np.array(np.ones(count) if scores is None else scores, np.float32),
        np.array(np.zeros(count) if classes is None else classes, np.intp),
    )


def random_boxes(count: int, classes: int, seed: int) -> Boxes:
    """Many of them overlap, and many scores are equal."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 100, (count, 2))
    xyxy = np.concatenate((corner, corner + random.uniform(1, 60, (count, 2))), axis=1)
    scores = random.integers(1, 12, count) / 12
    return boxes(*map(tuple, xyxy.tolist()), scores=scores, classes=random.integers(0, classes, count) * 13)


def suppressed_one_by_one(candidates: Boxes, max_iou: float) -> list[int]:
    """torchvision's `nms`, box by box, on boxes moved apart by class as Ultralytics moves them."""
    moved = candidates.xyxy + candidates.classes.astype(np.float32)[:, None] * np.float32(7680)
    order = sorted(range(len(candidates)), key=lambda index: -candidates.scores[index])
    kept: list[int] = []
    for index in order:
        a = moved[index]
        for better in kept:
            b = moved[better]
            width = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
            height = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
            inside = width * height
            area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
            if float(inside / (area_b + area_a - inside)) > max_iou:
                break
        else:
            kept.append(index)
    return kept


def test_the_overlap_is_intersection_over_union() -> None:
    first = boxes((0, 0, 10, 10), (0, 0, 0, 0)).xyxy
    second = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (0, 0, 0, 0)).xyxy
    expected = np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]], np.float32)
    assert np.array_equal(iou(first, second), expected)


@pytest.mark.parametrize("max_iou", [0.2, 0.45, 0.7])
@pytest.mark.parametrize("count", [0, 1, 120])
@pytest.mark.parametrize("classes", [1, 5])
def test_suppression_keeps_what_the_reference_keeps_in_its_order(count: int, classes: int, max_iou: float) -> None:
    candidates = random_boxes(count, classes, seed=count + classes)
    assert suppress(candidates, max_iou, 1000).tolist() == suppressed_one_by_one(candidates, max_iou)


def test_suppression_leaves_other_classes_and_overlaps_of_exactly_the_limit() -> None:
    same = (0.0, 0.0, 10.0, 10.0)
    candidates = boxes(same, same, same, (0, 0, 10, 5), scores=[0.5, 0.9, 0.5, 0.4], classes=[0, 0, 1, 0])
    assert suppress(candidates, 0.5, 10).tolist() == [1, 2, 3]


def test_of_equal_scores_the_lower_index_stays() -> None:
    candidates = boxes((0, 0, 10, 10), (1, 0, 11, 10), scores=[0.5, 0.5])
    assert suppress(candidates, 0.5, 10).tolist() == [0]


def test_suppression_stops_at_the_most_that_are_wanted() -> None:
    candidates = random_boxes(50, 3, seed=1)
    assert suppress(candidates, 0.5, 4).tolist() == suppress(candidates, 0.5, 50)[:4].tolist()


def test_boxes_without_area_suppress_none() -> None:
    assert suppress(boxes((5, 5, 5, 5), (5, 5, 5, 5), (5, 5, 4, 9)), 0.5, 10).tolist() == [0, 1, 2]


def test_no_box_is_matched_twice_and_those_are_that_overlap_most() -> None:
    first = boxes((0, 0, 10, 10), (1, 0, 11, 10))
    second = boxes((1, 0, 11, 10), (0, 0, 9, 10), (0, 0, 10, 8))
    pairs = match(first, second, 0.5)
    assert [(i, j) for i, j, _ in pairs] == [(0, 1), (1, 0)]
    assert [overlap for *_, overlap in pairs] == pytest.approx([0.9, 1.0])


def test_a_box_leaves_its_best_match_to_one_that_has_no_other() -> None:
    first = boxes((0, 0, 10, 10), (0, 0, 10, 6))
    second = boxes((0, 0, 10, 9), (0, 0, 10, 20))
    pairs = match(first, second, 0.4)
    assert [(i, j) for i, j, _ in pairs] == [(0, 1), (1, 0)]
    assert [overlap for *_, overlap in pairs] == pytest.approx([1 / 2, 2 / 3])


def test_only_boxes_of_the_same_class_that_overlap_enough_match() -> None:
    first = boxes((0, 0, 10, 10), (50, 0, 60, 10), classes=[0, 1])
    second = boxes((0, 0, 10, 10), (54, 0, 64, 10), classes=[1, 1])
    assert match(first, second, 0.5) == []
    assert [(i, j) for i, j, _ in match(first, second, 0.4)] == [(1, 1)]


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_matches_nothing(count: int) -> None:
    assert match(boxes(), random_boxes(count, 1, seed=0), 0.5) == []
