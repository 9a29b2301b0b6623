"""The comparison of two artifacts' answers, with answers made up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from modelkit.parity import ParityFailure, compare
from modelkit.spec import OutputSpec, ParityRecord

Scores = npt.NDArray[np.float32]
LABELS = np.arange(10, dtype=np.uint8)


def right_scores() -> Scores:
    return np.where(np.eye(10, dtype=bool), 0.91, 0.01).astype(np.float32)


def compared(torch: Scores, tf: Scores) -> ParityRecord:
    return compare(
        {"torch": {"scores": torch}, "tf": {"scores": tf}},
        LABELS,
        promised={"scores": OutputSpec(shape=(10,), meaning="softmax")},
        minimum_accuracy=0.9,
    )


def test_differences_within_the_tolerance_pass_and_are_recorded() -> None:
    record = compared(right_scores(), right_scores() + np.float32(5e-5))
    assert record.passed
    assert record.max_score_difference == pytest.approx(5e-5, rel=0.01)
    assert (record.pictures, record.same_top1, record.distinct_top1) == (10, 10, 10)
    assert record.correct == {"torch": 10, "tf": 10}


def test_another_answer_is_refused_naming_picture_and_difference() -> None:
    other = right_scores()
    other[3] = np.roll(other[3], 1)
    with pytest.raises(ParityFailure, match="about 1 of 10 pictures") as refusal:
        compared(right_scores(), other)
    assert "picture 3 (labelled 3): torch says 3 (0.9100), tf says 4 (0.9100), scores differ by 0.9" in str(
        refusal.value
    )


def test_the_same_answer_with_a_score_too_different_is_refused() -> None:
    other = right_scores()
    other[7] -= np.float32(2e-4)
    with pytest.raises(ParityFailure, match=r"picture 7 .* scores differ by 0\.0002"):
        compared(right_scores(), other)


def test_a_score_that_is_no_number_is_refused() -> None:
    other = right_scores()
    other[5, 0] = np.nan
    with pytest.raises(ParityFailure, match="picture 5"):
        compared(right_scores(), other)


def test_a_report_names_the_worst_pictures_first_and_not_all() -> None:
    other = right_scores() + np.linspace(0.001, 0.01, 10, dtype=np.float32)[:, None]
    with pytest.raises(ParityFailure) as refusal:
        compared(right_scores(), other)
    lines = str(refusal.value).splitlines()
    assert [line.split()[1] for line in lines[1:6]] == ["9", "8", "7", "6", "5"]
    assert lines[6] == "  … and 5 more"


def test_two_artifacts_that_agree_on_wrong_answers_are_refused() -> None:
    wrong = np.roll(right_scores(), 1, axis=1)
    with pytest.raises(ParityFailure, match=r"answers 0 of 10 held-out pictures right"):
        compared(wrong, wrong)


def test_an_output_of_another_shape_than_promised_is_refused() -> None:
    with pytest.raises(ParityFailure, match="the tf artifact returns"):
        compared(right_scores(), right_scores()[:, :9])
