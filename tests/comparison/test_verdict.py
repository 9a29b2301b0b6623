"""The verdict and its sentence."""

from __future__ import annotations

import numpy as np
import pytest

from comparison.interval import Interval, TooFew
from comparison.observations import Observations, Outcome, Outcomes, Pairs
from comparison.process import Process
from comparison.sentence import sentence
from comparison.verdict import Finding, Objection, verdict


def _draw(n: int, **process: float) -> tuple[Observations, Observations]:
    a, b = Process(process.pop("autocorrelation", 0.0), **process).draw(n, np.random.default_rng(1))  # type: ignore[arg-type]
    return Observations.answered(a), Observations.answered(b)


def _with(side: Observations, outcome: Outcome, share: float) -> Observations:
    codes: Outcomes = side.outcome.copy()
    codes[: round(share * len(codes))] = outcome
    return Observations(side.seconds, codes)


def test_the_faster_target_is_named_with_figures_tail_and_agreement() -> None:
    pairs = Pairs(*_draw(20_000, slowdown=1.3))
    agreed = np.ones(20_000, dtype=bool)
    agreed[::125] = False
    result = verdict("torch", "tf", pairs, agreed)
    assert (result.finding, result.faster) == (Finding.FASTER, "tf")
    said = sentence(result)
    assert said.startswith(
        "tf is faster: 14.9 ms against 19.3 at the median of pairs (−23.0 %, 95 % interval −23.3 … −22.6"
    )
    assert "; p95 −2" in said
    assert said.endswith("they agree on 99.2 % of 20,000 images")


def test_either_target_may_be_the_faster_one() -> None:
    a, b = _draw(2_000, slowdown=1.3)
    there, back = verdict("x", "y", Pairs(a, b)), verdict("y", "x", Pairs(b, a))
    assert (there.faster, back.faster) == ("y", "y")
    assert sentence(there) == sentence(back)


def test_a_small_difference_says_how_many_more_pairs_it_takes() -> None:
    result = verdict("torch", "tf", Pairs(*_draw(600)))
    assert result.finding is Finding.NOT_YET
    assert result.more_pairs is not None
    assert sentence(result).startswith("no difference shown yet: about ")
    assert sentence(result).endswith(" more pairs would show 5 %")


def test_many_pairs_rule_a_difference_out() -> None:
    result = verdict("torch", "tf", Pairs(*_draw(20_000)), np.ones(20_000, dtype=bool))
    assert result.finding is Finding.ALIKE
    assert sentence(result).startswith("no difference of 5 % or more: torch takes −")
    assert sentence(result).endswith("they agree on all of 20,000 images")


def test_few_pairs_give_no_verdict() -> None:
    result = verdict("torch", "tf", Pairs(*_draw(100)))
    assert result.finding is Finding.TOO_FEW
    assert isinstance(result.ratio, TooFew)
    assert sentence(result).startswith("too few effective samples: 100 pairs count as ")
    assert sentence(result).endswith("; about 200 more are needed")


def test_no_pairs_at_all_give_no_verdict() -> None:
    nothing = Observations.answered(np.empty(0))
    result = verdict("torch", "tf", Pairs(nothing, nothing), np.empty(0, dtype=bool))
    assert (result.finding, result.pairs, result.median_s) == (Finding.TOO_FEW, 0, None)
    assert "about 300 more" in sentence(result)


@pytest.mark.parametrize(
    ("outcome", "share", "objections"),
    [
        (Outcome.FAILED, 0.009, ()),
        (Outcome.FAILED, 0.02, (Objection.ERRORS,)),
        (Outcome.TIMED_OUT, 0.02, (Objection.ERRORS,)),
        (Outcome.DROPPED, 0.04, ()),
        (Outcome.DROPPED, 0.06, (Objection.CENSORED,)),
        (Outcome.FAILED, 1.0, (Objection.ERRORS, Objection.CENSORED)),
        (Outcome.DROPPED, 1.0, (Objection.CENSORED,)),
    ],
    ids=lambda value: str(value),
)
def test_what_was_not_measured_forbids_a_verdict_above_a_share(
    outcome: Outcome, share: float, objections: tuple[Objection, ...]
) -> None:
    a, b = _draw(2_000, slowdown=1.3)
    result = verdict("torch", "tf", Pairs(a, _with(b, outcome, share)))
    assert result.objections == objections
    assert (result.finding is Finding.DO_NOT_COMPARE) == bool(objections)
    if objections:
        assert result.faster is None
        assert sentence(result) == f"do not compare: {', '.join(objections)}"


def test_what_only_the_caller_knows_forbids_a_verdict() -> None:
    result = verdict("torch", "tf", Pairs(*_draw(2_000, slowdown=1.3)), objections=[Objection.COLD, Objection.DEVICE])
    assert sentence(result) == "do not compare: device differs, one side was cold"
    assert isinstance(result.ratio, Interval)


def test_the_claim_is_that_of_the_wider_bound() -> None:
    result = verdict("torch", "tf", Pairs(*_draw(2_000)))
    once, ever = result.ratio, result.ratio_any_looks
    assert isinstance(once, Interval)
    assert isinstance(ever, Interval)
    assert ever.low < once.low < once.high < ever.high


def test_what_pairs_since_the_last_spaced_look_deny_is_not_claimed() -> None:
    slow, back = _draw(2_450, slowdown=1.05)
    late = slow.seconds.copy()
    late[2_000:] /= 1.3
    before, after = (verdict("x", "y", Pairs(Observations.answered(a), back)) for a in (slow.seconds, late))
    assert (before.finding, before.faster) == (Finding.FASTER, "y")
    assert after.ratio_any_looks == before.ratio_any_looks
    assert after.finding is Finding.NOT_YET
    assert after.faster is None


def test_the_difference_is_there_in_seconds_too() -> None:
    a, b = _draw(2_000, sigma=0.05)
    result = verdict("x", "y", Pairs(Observations.answered(a.seconds + 0.02), b)).difference_s
    assert isinstance(result, Interval)
    assert result.low < 0.02 < result.high
    assert result.estimate == pytest.approx(0.02, abs=0.0005)
