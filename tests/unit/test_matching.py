"""Which of two runtimes' objects are the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from gateway.tasks.matching import matching


def random_overlaps(shape: tuple[int, int], share: float, seed: int) -> NDArray[np.float32]:
    """About so many of them are not 0, and many are equal."""
    random = np.random.default_rng(seed)
    overlaps = random.integers(1, 20, shape) / 20
    return np.where(random.random(shape) < share, overlaps, 0).astype(np.float32)


def reference(overlaps: NDArray[np.float32], least: float) -> tuple[int, float]:
    """How many pairs there can be, and what their overlaps add up to at most, by SciPy."""
    possible = overlaps >= least
    most = round(_value(possible.astype(np.float64)))
    return most, _value(np.where(possible, 1000 + overlaps.astype(np.float64), 0)) - 1000 * most


def _value(worth: NDArray[np.float64]) -> float:
    return float(worth[linear_sum_assignment(worth, maximize=True)].sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.02, 0.3, 1.0], ids=["few", "some", "all"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (7, 3), (40, 40), (60, 25)], ids=str)
def test_there_are_as_many_pairs_as_can_be_and_they_overlap_most(
    shape: tuple[int, int], share: float, least: float, seed: int
) -> None:
    overlaps = random_overlaps(shape, share, seed)
    pairs = matching(overlaps, least)
    assert all(overlap == overlaps[row, column] >= np.float32(least) for row, column, overlap in pairs)
    for side in (0, 1):
        assert len({pair[side] for pair in pairs}) == len(pairs)
    most, total = reference(overlaps, least)
    assert len(pairs) == most
    assert sum(overlap for *_, overlap in pairs) == pytest.approx(total)
    assert pairs == sorted(pairs)


def test_two_pairs_come_before_one_that_overlaps_more() -> None:
    overlaps = np.array([[1.0, 0.4], [0.4, 0.0]], np.float32)
    assert [(row, column) for row, column, _ in matching(overlaps, 0.4)] == [(0, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)], ids=str)
def test_nothing_matches_nothing(shape: tuple[int, int]) -> None:
    assert matching(np.zeros(shape, np.float32), 0.5) == []


def test_an_overlap_of_exactly_the_least_is_enough() -> None:
    assert matching(np.array([[0.5]], np.float32), 0.5) == [(0, 0, 0.5)]
