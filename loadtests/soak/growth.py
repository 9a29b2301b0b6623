"""Whether a figure that goes up and down grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BLOCKS = 12
LEAST_SHARE_PER_H = 0.01
"""Growth below this share of the level in an hour cannot be told from an allocator that settles, in half an hour."""


@dataclass(frozen=True)
class Growth:
    level: float
    """What is held at least: the median of the parts."""
    per_h: float
    low_per_h: float
    high_per_h: float
    """95 % interval."""

    @property
    def grows(self) -> bool:
        return self.low_per_h > 0 and self.per_h > LEAST_SHARE_PER_H * self.level


def growth(seconds: Sequence[float], values: Sequence[float]) -> Growth:
    """The slope by Theil and Sen (Sen, 1968), which single peaks do not move.

    Of the least of each of BLOCKS equal parts. Of parts, since neighbouring samples of a process's memory are alike: an
    interval from all of them would be far too narrow. Of the least, since requests under way and what the allocator
    keeps of large ones are peaks on what is held for good. Raises ValueError for fewer samples than blocks.
    """
    if len(values) < BLOCKS:
        raise ValueError(f"{len(values)} samples are too few to judge growth by: at least {BLOCKS}.")
    times = [float(np.median(each)) for each in np.array_split(np.asarray(seconds, float), BLOCKS)]
    levels = [float(np.min(each)) for each in np.array_split(np.asarray(values, float), BLOCKS)]
    slope, _, low, high = stats.theilslopes(levels, times, alpha=0.95)
    return Growth(float(np.median(levels)), *(float(each) * 3600 for each in (slope, low, high)))
