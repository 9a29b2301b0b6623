"""Timing export forms of one model against each other. Used inside both worker environments: standard library only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

PICTURES = 8
"""Batch size at which forms are compared: the largest that the workers make."""
WARM_UP = 3
LEAST_ROUNDS, MOST_ROUNDS = 3, 60
BUDGET_S = 8.0
"""How long the rounds may take in all; the round under way when it ends is finished."""


def milliseconds_a_picture(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each call, in milliseconds, divided by the batch of PICTURES it answers.

    The shortest, in rounds of changing order: what else the machine does can only make a call longer.
    """
    for call in candidates.values():
        for _ in range(WARM_UP):
            call()
    shortest_s = dict.fromkeys(candidates, float("inf"))
    order = list(candidates.items())
    shuffle = random.Random(0).shuffle  # noqa: S311  # nothing to keep secret
    end = time.perf_counter() + BUDGET_S
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        shuffle(order)
        for form, call in order:
            start = time.perf_counter()
            call()
            shortest_s[form] = min(shortest_s[form], time.perf_counter() - start)
    return {form: round(seconds * 1e3 / PICTURES, 4) for form, seconds in shortest_s.items()}
