"""Timing export forms of one model against each other. Used inside both worker environments: standard library only."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

PICTURES = 8
"""Batch size at which forms are compared."""
ROUNDS = 60
WARM_UP = 15


def milliseconds_a_picture(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The median processor time of each call, divided by the batch of PICTURES it answers.

    Processor time, which with one thread is what a call takes on a quiet machine, and rounds in changing order: the
    comparison holds on a machine that does other things as well.
    """
    for call in candidates.values():
        for _ in range(WARM_UP):
            call()
    seconds: dict[str, list[float]] = {form: [] for form in candidates}
    order = list(candidates.items())
    shuffle = random.Random(0).shuffle  # noqa: S311  # nothing to keep secret
    for _ in range(ROUNDS):
        shuffle(order)
        for form, call in order:
            start = time.process_time()
            call()
            seconds[form].append(time.process_time() - start)
    return {form: round(statistics.median(taken) * 1e3 / PICTURES, 4) for form, taken in seconds.items()}
