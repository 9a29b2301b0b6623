"""The comparison of two artifacts' answers, with answers made up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from modelkit.parity import ParityFailure, compare, report
from modelkit.spec import ParityRecord
from tests.support.packages import digits_spec

Scores = npt.NDArray[np.float32]
LABELS = np.arange(10, dtype=np.uint8)


def right_scores() -> Scores:
    return np.where(np.eye(10, dtype=bool), 0.91, 0.01).astype(np.float32)


def compared(torch: Scores, tf: Scores) -> ParityRecord:
    return compare(
        digits_spec(),
        {"torch": {"scores": torch}, "tf": {"scores": tf}},
        [f"picture {number}" for number in range(len(torch))],
        right=lambda _, outputs: int((outputs["scores"].argmax(axis=1) == LABELS).sum()),
    )


def test_differences_within_the_tolerance_pass_and_are_recorded() -> None:
    record = compared(right_scores(), right_scores() + np.float32(5e-5))
    assert (record.passed, record.proves) == (True, True)
    assert record.max_score_difference == pytest.approx(5e-5, rel=0.01)
    assert record.outputs["scores"].spread == pytest.approx(0.9)
    assert record.outputs["scores"].fraction == pytest.approx(5e-5 / 0.9, rel=0.01)
    assert (record.pictures, record.agreeing, record.distinct) == (10, 10, 10)
    assert record.correct == {"torch": 10, "tf": 10}


def test_another_answer_does_not_pass_and_the_report_names_output_picture_and_difference() -> None:
    other = right_scores()
    other[3] = np.roll(other[3], 1)
    record = compared(right_scores(), other)
    assert not record.passed
    said = report(record)
    assert "9 of 10 pictures with the same predictions" in said
    assert "output scores: greatest difference 0.9 (on picture 3), which is 1 of its spread of 0.9" in said
    assert "over the tolerance of 0.001" in said


def test_the_same_answer_with_a_score_too_different_does_not_pass() -> None:
    other = right_scores()
    other[7] -= np.float32(2e-3)
    record = compared(right_scores(), other)
    assert (record.agreeing, record.passed, record.outputs["scores"].picture) == (10, False, "picture 7")


def test_a_difference_is_held_against_what_pictures_change_and_not_against_the_values() -> None:
    """Random weights answer every picture with nearly the same numbers: next to that, a small difference is great."""
    nearly_constant = 0.1 + right_scores() * np.float32(1e-4)
    record = compared(nearly_constant, nearly_constant + np.float32(1e-6))
    assert record.max_score_difference < 1e-5
    assert not record.passed


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_a_score_that_is_no_number_does_not_pass(value: float) -> None:
    other = right_scores()
    other[5, 0] = value
    record = compared(right_scores(), other)
    assert (record.passed, record.outputs["scores"].picture) == (False, "picture 5")


def test_agreement_about_few_different_answers_passes_and_is_said_to_prove_little() -> None:
    same = np.tile(right_scores()[:2], (5, 1))
    record = compared(same, same)
    assert (record.passed, record.proves, record.distinct) == (True, False, 2)
    assert "proves little: the pictures led to 2 different answers" in report(record)


def test_an_output_of_another_shape_than_promised_is_refused() -> None:
    with pytest.raises(ParityFailure, match="the tf artifact returns"):
        compared(right_scores(), right_scores()[:, :9])
