"""What may be an observation, and what censored ones count as."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from comparison.observations import Observations, Outcome, Pairs
from comparison.ratio import latency_quantile


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.inf], ids=str)
def test_what_is_no_latency_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="outcome other than OK"):
        Observations.answered(np.array([seconds]))


def test_unequal_pairs_and_unknown_outcomes_are_refused() -> None:
    one, two = (Observations.answered(np.ones(n)) for n in (1, 2))
    with pytest.raises(ValueError, match="both of every pair"):
        Pairs(one, two)
    with pytest.raises(ValueError, match="Outcome's codes"):
        Observations(np.ones(1), np.full(1, 9, dtype=np.int8))
    with pytest.raises(ValueError, match="one of each"):
        Observations(np.ones(2), np.zeros(1, dtype=np.int8))


def test_time_outs_are_slower_than_all_and_the_rest_is_unknown() -> None:
    outcome = np.array([Outcome.OK, Outcome.TIMED_OUT, Outcome.FAILED, Outcome.DROPPED], dtype=np.int8)
    side = Observations(np.array([0.1, np.nan, np.nan, np.nan]), outcome)
    seconds, unknown = side.ordered()
    assert seconds.tolist() == [0.1, np.inf]
    assert unknown == 1  # a dropped one was never sent
    assert side.errors.tolist() == [False, True, True]
    ratios, unknown = Pairs(side, Observations.answered(np.full(4, 0.2))).log_ratios()
    assert ratios == pytest.approx([log(0.5), np.inf])
    assert unknown == 2


def test_a_quantile_among_time_outs_is_beyond_the_deadline() -> None:
    outcome = np.zeros(1_000, dtype=np.int8)
    outcome[::2] = Outcome.TIMED_OUT
    outcome[::5] = Outcome.TIMED_OUT
    result = latency_quantile(Observations(np.ones(1_000), outcome), 0.5)
    assert result.estimate == np.inf
