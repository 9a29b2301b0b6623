"""Raw tensors → predictions, and whether two runtimes' predictions agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.agreement import BoxAgreement, ClassAgreement, MaskAgreement
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, RuntimeFailed
from gateway.images.geometry import Geometry
from gateway.tasks.base import Limits
from gateway.tasks.classify import Classified
from gateway.tasks.detect import Box, Detected, Detection
from gateway.tasks.segment import EncodedMask, Segmented
from gateway.tasks.table import TASKS
from modelkit.spec import InputSpec, ModelSpec, Task, Tolerances
from tests.support.coco import decoded
from tests.support.packages import CANDIDATES, PROTOTYPES, detector_spec, digits_spec, segmenter_spec

Array = NDArray[np.float32]
WHOLE = Geometry.identity(InputSpec(height=64, width=64))


def candidates(*found: tuple[float, float, float, float, float, float]) -> dict[str, Array]:
    """Tensors of a detector that holds x1, y1, x2, y2, score, class of each, and nothing else."""
    rows = np.zeros((CANDIDATES, 6), np.float32)
    rows[: len(found)] = np.array(found, np.float32).reshape(len(found), 6)
    return {"boxes": rows[None, :, :4], "scores": rows[None, :, 4], "classes": rows[None, :, 5]}


def with_masks(tensors: dict[str, Array], *signs: float) -> dict[str, Array]:
    """Each candidate's mask is all of its box where the sign is positive."""
    coefficients = np.zeros((1, CANDIDATES, PROTOTYPES), np.float32)
    coefficients[0, : len(signs), 0] = signs
    return tensors | {"coefficients": coefficients, "prototypes": np.ones((1, PROTOTYPES, 16, 16), np.float32)}


def detect(tensors: dict[str, Array], spec: ModelSpec | None = None, **limits: float) -> Detected:
    asked = dataclasses.replace(Limits(10, 0.25), **limits)  # type: ignore[arg-type]
    found = TASKS["detect"].find(spec or detector_spec(), tensors, WHOLE, asked)
    assert isinstance(found, Detected)
    return found


def segment(tensors: dict[str, Array], geometry: Geometry = WHOLE) -> Segmented:
    found = TASKS["segment"].find(segmenter_spec(), tensors, geometry, Limits(10, 0.25))
    assert isinstance(found, Segmented)
    return found


def classify(*scores: float, most: int = 5, min_score: float = 0) -> Classified:
    tensors = {"scores": np.array([scores + (0,) * (10 - len(scores))], np.float32)}
    found = TASKS["classify"].find(digits_spec(), tensors, WHOLE, Limits(most, min_score))
    assert isinstance(found, Classified)
    return found


def test_the_best_classes_come_first_and_equals_by_class_id() -> None:
    found = classify(0.2, 0.1, 0.2, 0.5, most=3, min_score=0.15).predictions
    assert [(each.class_id, each.label) for each in found] == [(3, "3"), (0, "0"), (2, "2")]


def test_a_class_with_exactly_the_least_score_counts() -> None:
    assert len(classify(0.5, 0.25, min_score=0.25).predictions) == 2


def test_scores_that_do_not_add_up_to_one_are_answered_as_they_are() -> None:
    """Sigmoid scores: each is for itself."""
    assert [each.score for each in classify(0.9, 0.8, 0.7, min_score=0.1).predictions] == [0.9, 0.8, 0.7]


def test_detections_come_best_first_with_rounded_pixels() -> None:
    tensors = candidates((1, 2, 3, 4.5678, 0.5, 0), (10, 20, 30.123, 40, 0.75, 1))
    assert detect(tensors).predictions == [
        Detection(1, "square", 0.75, Box(10, 20, 30.12, 40)),
        Detection(0, "circle", 0.5, Box(1, 2, 3, 4.57)),
    ]


def test_a_detection_has_more_than_the_least_score() -> None:
    tensors = candidates((0, 0, 9, 9, 0.5, 0), (20, 20, 30, 30, 0.25, 0))
    assert [each.score for each in detect(tensors, min_score=0.25).predictions] == [0.5]


def test_no_more_detections_are_answered_than_asked_for() -> None:
    tensors = candidates((0, 0, 9, 9, 0.5, 0), (20, 20, 30, 30, 0.75, 0), (40, 0, 50, 9, 0.6, 0))
    assert [each.score for each in detect(tensors, most=2).predictions] == pytest.approx([0.75, 0.6])


@pytest.mark.parametrize(("nms_iou", "scores"), [(None, [0.9, 0.75, 0.5]), (0.6, [0.9, 0.5])])
def test_overlapping_candidates_of_a_class_are_dropped_where_the_package_says_so(
    nms_iou: float | None, scores: list[float]
) -> None:
    tensors = candidates((0, 0, 10, 10, 0.75, 0), (0, 0, 10, 9, 0.9, 0), (0, 0, 10, 10, 0.5, 1))
    found = detect(tensors, detector_spec(nms_iou=nms_iou)).predictions
    assert [each.score for each in found] == pytest.approx(scores)


def test_boxes_are_clipped_and_those_out_of_the_picture_are_none() -> None:
    tensors = candidates((-5, -5, 70, 70, 0.9, 0), (70, 0, 80, 10, 0.8, 0), (5, 5, 5, 9, 0.7, 0), (9, 9, 3, 12, 0.6, 0))
    found = detect(tensors)
    assert [each.box for each in found.predictions] == [Box(0, 0, 64, 64)]
    assert len(found.boxes) == 1


def test_boxes_are_in_pixels_of_the_original() -> None:
    geometry = Geometry.of((128, 64), detector_spec().input)  # half as large, 16 rows of padding above
    found = TASKS["detect"].find(detector_spec(), candidates((10, 20, 30, 40, 0.9, 0)), geometry, Limits(10, 0.25))
    assert found.predictions[0].box == Box(20, 8, 60, 48)


def test_a_picture_without_anything_gives_no_predictions() -> None:
    assert detect(candidates()).predictions == []
    assert segment(with_masks(candidates())).predictions == []


@pytest.mark.parametrize("class_id", [2, -1, 0.5, 1e17])
def test_a_class_that_the_model_has_not_is_the_runtimes_failure(class_id: float) -> None:
    with pytest.raises(RuntimeFailed, match="no class of the model: 0 to 1"):
        detect(candidates((0, 0, 9, 9, 0.9, class_id)))


def test_candidates_below_the_least_score_may_hold_any_class() -> None:
    """The rest of a fixed number of candidates is padding."""
    assert detect(candidates((0, 0, 9, 9, 0.1, 99))).predictions == []


@pytest.mark.parametrize("name", ["boxes", "scores", "classes", "coefficients", "prototypes"])
def test_nan_missing_and_misshapen_tensors_are_the_runtimes_failure(name: str) -> None:
    good = with_masks(candidates((0, 0, 9, 9, 0.9, 0)), 1)
    wrong: list[NDArray[Any]] = [np.full_like(good[name], np.nan), good[name][:, :-1], good[name].astype(np.float64)]
    for bad in wrong:
        with pytest.raises(RuntimeFailed, match=f"'{name}'"):
            segment(good | {name: bad})
    with pytest.raises(RuntimeFailed, match=f"lacks the tensor '{name}'"):
        segment({other: tensor for other, tensor in good.items() if other != name})


def test_a_mask_is_inside_its_box_at_the_size_of_the_original() -> None:
    geometry = Geometry.of((128, 64), segmenter_spec().input)
    (found,) = segment(with_masks(candidates((10, 20, 30, 40.2, 0.9, 0)), 1), geometry).predictions
    assert found.box == Box(20, 8, 60, 48.4)
    expected = np.zeros((64, 128), dtype=bool)
    expected[8:49, 20:60] = True
    assert found.mask.size == (64, 128)
    assert np.array_equal(decoded(found.mask.size, found.mask.counts), expected)


def test_a_detection_whose_mask_has_no_pixel_is_none() -> None:
    tensors = with_masks(candidates((0, 0, 9, 9, 0.9, 0), (20, 20, 30, 30, 0.8, 1)), -1, 1)
    found = segment(tensors)
    assert [each.label for each in found.predictions] == ["square"]
    assert (len(found.boxes), len(found.masks)) == (1, 1)


def test_masks_of_a_picture_of_one_pixel() -> None:
    geometry = Geometry.of((1, 1), segmenter_spec().input)
    (found,) = segment(with_masks(candidates((0, 0, 64, 64, 0.9, 0)), 1), geometry).predictions
    assert found.mask == EncodedMask((1, 1), "01")


def test_masks_that_nobody_waits_for_any_more_are_not_made() -> None:
    limits = Limits(10, 0.25, Deadline.after_ms(0))
    with pytest.raises(DeadlineExceeded):
        TASKS["segment"].find(segmenter_spec(), with_masks(candidates((0, 0, 64, 64, 0.9, 0)), 1), WHOLE, limits)


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_limits_are_by_default_those_of_the_task_or_the_package(task: Task) -> None:
    spec = {"classify": digits_spec(), "detect": detector_spec(most=3), "segment": segmenter_spec()}[task]
    expected = {"classify": Limits(5, 0), "detect": Limits(3, 0.25), "segment": Limits(300, 0.25)}[task]
    assert TASKS[task].defaults(spec) == expected


def test_classes_agree_where_the_best_is_the_same() -> None:
    agreement, pictures = TASKS["classify"].compare(
        [classify(0.9, 0.1), classify(0.6, 0.4)], [classify(0.8, 0.2), classify(0.4, 0.6)], Tolerances(top_k=2)
    )
    assert vars(agreement) == {
        "agree": False,
        "images": 2,
        "same_top1": 1,
        "top_k": 2,
        "mean_top_k_overlap": 1.0,
        "min_top_k_overlap": 1.0,
        "max_score_difference": pytest.approx(0.2),
    }
    assert [same for same, _ in pictures] == [True, False]


def test_the_best_classes_that_both_name_are_a_share_of_those_compared() -> None:
    first, second = [classify(0.4, 0.3, 0.2, 0.1), classify(0.9)], [classify(0.4, 0.3, 0, 0, 0.2, 0.1), classify(0.9)]
    agreement, pictures = TASKS["classify"].compare(first, second, Tolerances(top_k=4, min_top_k_overlap=0.6))
    assert isinstance(agreement, ClassAgreement)
    assert (agreement.min_top_k_overlap, agreement.mean_top_k_overlap, agreement.same_top1) == (0.5, 0.75, 2)
    assert [same for same, _ in pictures] == [False, True]
    assert TASKS["classify"].compare(first, second, Tolerances(top_k=4, min_top_k_overlap=0.5)).agreement.agree


@pytest.mark.parametrize("seed", range(5))
def test_the_best_classes_are_those_that_are_answered(seed: int) -> None:
    """Many scores are equal."""
    random = np.random.default_rng(seed)
    first, second = ([classify(*(random.integers(0, 4, 10) / 4).tolist(), most=4)] for _ in range(2))
    agreement = TASKS["classify"].compare(first, second, Tolerances(top_k=4)).agreement
    assert isinstance(agreement, ClassAgreement)
    answered = [{each.class_id for each in found[0].predictions} for found in (first, second)]
    assert agreement.min_top_k_overlap == len(answered[0] & answered[1]) / 4


def test_no_more_of_the_best_classes_are_compared_than_there_are() -> None:
    agreement = TASKS["classify"].compare([classify(0.9)], [classify(0.1, 0.9)], Tolerances(top_k=50)).agreement
    assert isinstance(agreement, ClassAgreement)
    assert (agreement.top_k, agreement.min_top_k_overlap) == (10, 1.0)


def test_boxes_agree_where_all_of_both_are_matched() -> None:
    first = [detect(candidates((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.6, 1))), detect(candidates())]
    second = [detect(candidates((0, 0, 10, 9, 0.8, 0), (20, 20, 30, 30, 0.6, 1))), detect(candidates())]
    agreement, pictures = TASKS["detect"].compare(first, second, Tolerances())
    assert vars(agreement) == {
        "agree": True,
        "images": 2,
        "matched": 2,
        "unmatched": 0,
        "f1": 1.0,
        "min_f1": 1.0,
        "mean_iou": pytest.approx(0.95),
        "min_iou": pytest.approx(0.9),
        "max_score_difference": pytest.approx(0.1),
    }
    assert pictures == [(True, pytest.approx(0.1)), (True, 0.0)]


def test_a_box_without_a_match_on_either_side_is_disagreement() -> None:
    both = candidates((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.6, 1))
    one = candidates((0, 0, 10, 10, 0.9, 0))
    for pair in ([both, one], [one, both]):
        first, second = ([detect(tensors)] for tensors in pair)
        agreement, pictures = TASKS["detect"].compare(first, second, Tolerances())
        assert isinstance(agreement, BoxAgreement)
        assert (agreement.agree, agreement.matched, agreement.unmatched) == (False, 1, 1)
        assert agreement.f1 == agreement.min_f1 == pytest.approx(2 / 3)
        assert pictures == [(False, 0.0)]
        assert TASKS["detect"].compare(first, second, Tolerances(min_f1=0.6)).agreement.agree


def test_over_several_pictures_f1_is_of_all_detections_and_its_least_of_one_picture() -> None:
    two, none = candidates((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.6, 1)), candidates()
    agreement, pictures = TASKS["detect"].compare(
        [detect(two), detect(none)], [detect(two), detect(two)], Tolerances(min_f1=0.5)
    )
    assert isinstance(agreement, BoxAgreement)
    assert [agreement.f1, agreement.min_f1] == pytest.approx([4 / 6, 0])
    assert [same for same, _ in pictures] == [True, False]


def test_the_overlap_that_makes_boxes_the_same_can_be_asked_for() -> None:
    first, second = detect(candidates((0, 0, 10, 10, 0.9, 0))), detect(candidates((0, 0, 10, 9.5, 0.9, 0)))
    assert TASKS["detect"].compare([first], [second], Tolerances()).agreement.agree
    assert not TASKS["detect"].compare([first], [second], Tolerances(iou=0.99)).agreement.agree


@pytest.mark.parametrize(("most", "agree"), [(None, True), (0.3, True), (0.1, False)])
def test_how_far_scores_may_differ_can_be_asked_for(most: float | None, agree: bool) -> None:
    answers: dict[Task, list[Any]] = {
        "classify": [[classify(score)] for score in (0.9, 0.7)],
        "detect": [[detect(candidates((0, 0, 10, 10, score, 0)))] for score in (0.9, 0.7)],
        "segment": [[segment(with_masks(candidates((0, 0, 10, 10, score, 0)), 1))] for score in (0.9, 0.7)],
    }
    for task, (first, second) in answers.items():
        tolerances = Tolerances(max_score_difference=most)
        assert TASKS[task].compare(first, second, tolerances).agreement.agree == agree


def test_nothing_found_by_either_is_agreement_without_overlaps() -> None:
    agreement = TASKS["segment"].compare(
        [segment(with_masks(candidates()))] * 2, [segment(with_masks(candidates()))] * 2, Tolerances()
    )
    assert agreement.agreement == MaskAgreement(
        agree=True,
        images=2,
        matched=0,
        unmatched=0,
        f1=1.0,
        min_f1=1.0,
        mean_iou=None,
        min_iou=None,
        max_score_difference=0.0,
        mask_f1=1.0,
        min_mask_f1=1.0,
        mean_mask_iou=None,
        min_mask_iou=None,
    )


def test_masks_agree_where_those_of_matched_boxes_overlap_too() -> None:
    tensors = with_masks(candidates((0, 0, 64, 64, 0.9, 0)), 1)
    half, quarter = (tensors["prototypes"].copy() for _ in range(2))
    half[..., 10:] = -1
    quarter[..., 4:] = -1
    whole = segment(tensors)
    for prototypes, share, agree in [(half, 40 / 64, True), (quarter, 16 / 64, False)]:
        other = segment(tensors | {"prototypes": prototypes})
        agreement, pictures = TASKS["segment"].compare([whole], [other], Tolerances())
        assert isinstance(agreement, MaskAgreement)
        assert (agreement.agree, agreement.matched, agreement.f1, agreement.min_iou) == (agree, 1, 1.0, 1.0)
        assert agreement.mask_f1 == agreement.min_mask_f1 == float(agree)
        assert agreement.min_mask_iou == agreement.mean_mask_iou == pytest.approx(share, abs=0.01)
        assert pictures == [(agree, 0.0)]
