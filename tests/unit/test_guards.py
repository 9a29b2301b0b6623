"""What becomes of a canary's step, by comparisons made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.guards import Hold, Promote, RollBack, decide
from gateway.routing import Canary, Progress
from tests.support.comparisons import UNKNOWN, comparison

CANARY: dict[str, Any] = {"policy": "canary", "from": "torch", "to": "tf", "hold_s": 60}
BEGUN = Progress(1, 1000.0, "running", "It has begun.")
EARLY, LATE = 1059.9, 1060.0


def decided(now: float, policy: dict[str, Any] | None = None, **figures: Any) -> Hold | Promote | RollBack:
    return decide(Canary.model_validate(CANARY | (policy or {})), BEGUN, comparison(**figures), now)


def test_what_is_well_is_held_for_its_time_and_then_promoted_with_its_figures() -> None:
    assert decided(EARLY) == Hold("holding until 1970-01-01 00:17:40 UTC")
    assert decided(LATE) == Promote(
        "tf takes 0.8 times as long as torch at the median of pairs; tf fails 0.10% of 1,000 requests; "
        "they agree on 99.90% of 1,000 images"
    )


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        (
            {"paired": (0.8, 0.7, 0.9)},
            "tf takes 1.25 times as long as torch at the median of pairs (at least 1.11), more than 1.1",
        ),
        (
            {"errors": ((0.001, 0.0, 0.01), (0.05, 0.02, 0.1))},
            "tf fails 5.00% of 1,000 requests (at least 2.00%), more than 0.01, and torch at most 1.00%",
        ),
        (
            {"errors": ((0.0, None, 0.01), (1.0, 0.9, None))},
            "tf fails 100.00% of 1,000 requests (at least 90.00%), more than 0.01, and torch at most 1.00%",
        ),
        (
            {"errors": (UNKNOWN, (0.05, 0.02, 0.1))},
            "tf fails 5.00% of 1,000 requests (at least 2.00%), more than 0.01",
        ),
        (
            {"agreement": (0.9, 0.85, 0.98)},
            "they agree on 90.00% of 1,000 images (at most 98.00%), less than 0.99",
        ),
    ],
    ids=["latency", "errors", "all fail", "errors of to alone known", "agreement"],
)
def test_a_guard_that_is_broken_beyond_doubt_rolls_back_before_the_time_is_over(
    figures: dict[str, Any], why: str
) -> None:
    assert decided(EARLY, **figures) == RollBack(why)
    assert decided(LATE, **figures) == RollBack(why)


def test_one_broken_guard_is_enough_whatever_is_not_known() -> None:
    assert isinstance(decided(EARLY, paired=UNKNOWN, agreement=(0.9, 0.85, 0.98)), RollBack)


def test_another_device_or_precision_does_not_keep_a_canary_from_moving_on() -> None:
    assert isinstance(decided(LATE, objections=["device differs", "precision differs"]), Promote)


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        (
            {"paired": (0.9, 0.8, 1.0)},
            "tf takes 1.11 times as long as torch at the median of pairs, more than 1.1, which may be chance",
        ),
        (
            {"paired": (0.9, 0.8, None)},
            "tf takes 1.11 times as long as torch at the median of pairs, more than 1.1, which may be chance",
        ),
        (
            {"errors": ((0.0, None, 0.02), (0.02, 0.005, 0.04))},
            "tf fails 2.00% of 1,000 requests, more than 0.01, which may be chance or torch's fault, too",
        ),
        (
            {"errors": ((0.2, 0.1, 0.3), (0.25, 0.15, 0.35))},
            "tf fails 25.00% of 1,000 requests, more than 0.01, which may be chance or torch's fault, too",
        ),
        (
            {"errors": ((1.0, 0.9, None), (1.0, 0.9, None))},
            "tf fails 100.00% of 1,000 requests, more than 0.01, which may be chance or torch's fault, too",
        ),
        (
            {"agreement": (0.98, 0.95, 0.995)},
            "they agree on 98.00% of 1,000 images, less than 0.99, which may be chance",
        ),
        ({"paired": UNKNOWN}, "too few effective samples for the latency: about 250 more pairs"),
        ({"paired": (2.0, None, None)}, "too few effective samples for the latency: about 250 more pairs"),
        (
            {"errors": ((0.0, None, 0.01), (0.0, None, None))},
            "too few effective samples for the error rate of tf: about 250 more requests",
        ),
        ({"agreement": UNKNOWN}, "too few effective samples for the agreement: about 250 more pictures"),
    ],
    ids=[
        "latency", "latency, open end", "errors", "both fail", "both fail all", "agreement", "no pairs", "few pairs",
        "few requests", "few pictures",
    ],
)  # fmt: skip
def test_what_is_neither_broken_nor_kept_is_waited_for(figures: dict[str, Any], why: str) -> None:
    assert decided(LATE, **figures) == Hold(f"waiting: {why}")
    assert decided(EARLY, **figures) == Hold(f"holding until 1970-01-01 00:17:40 UTC; {why}")


def test_all_that_is_waited_for_is_said() -> None:
    decision = decided(LATE, paired=UNKNOWN, errors=(UNKNOWN, UNKNOWN), agreement=UNKNOWN)
    assert decision.why.count("too few effective samples") == 3


def test_evidence_at_the_edge_of_a_guard_is_within_it() -> None:
    guards = {"guards": {"latency_ratio": 1.25, "error_rate": 0.02, "agreement": 0.98}}
    edge: dict[str, Any] = {
        "paired": (0.8, 0.7, 0.8), "errors": ((0.0, None, 0.01), (0.02, 0.02, 0.03)), "agreement": (0.98, 0.9, 0.98),
    }  # fmt: skip
    assert isinstance(decided(LATE, guards, **edge), Promote)


def test_without_samples_the_unpaired_ratio_counts_and_agreement_does_not() -> None:
    unsampled = {"sample_rate": 0, "guards": {"agreement": None}}
    assert isinstance(decided(LATE, unsampled, paired=UNKNOWN, agreement=UNKNOWN, unpaired=(1.0, 0.9, 1.1)), Promote)
    assert isinstance(decided(LATE, unsampled, paired=UNKNOWN, unpaired=(0.5, 0.4, 0.6)), RollBack)
    assert decided(LATE, unsampled) == Hold(
        "waiting: too few effective samples for the latency: about 250 more requests"
    )
