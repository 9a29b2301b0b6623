"""Which of two runtimes' objects are the same, from how much each of the one overlaps each of the other."""

from __future__ import annotations

import lap
import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int, float]
"""A row, a column, and their overlap."""


def matching(overlaps: NDArray[np.float32], least: float) -> list[Pair]:
    """Pairs of a row and a column of `overlaps` `[n, m]`, each from `least` to 1, in the order of the rows.

    No row and no column is in two pairs. It is the most pairs that there can be, and of those the ones whose overlaps
    add up to the most.
    """
    possible = overlaps >= least
    # Two runtimes' objects differ by rounding: nearly always each may go with one of the other's, and nobody else may.
    alone = possible & (possible.sum(axis=1) == 1)[:, None] & (possible.sum(axis=0) == 1)
    pairs = [*zip(*np.nonzero(alone), strict=True)]
    contested = possible & ~alone
    rows, columns = (np.flatnonzero(contested.any(axis=axis)) for axis in (1, 0))
    if len(rows):
        block = np.ix_(rows, columns)
        # One more pair is worth more than any overlaps: together they are at most the number of pairs.
        worth = np.where(contested[block], len(rows) + overlaps[block].astype(np.float64), 0.0)
        chosen, _ = lap.lapjv(-worth, extend_cost=True, return_cost=False)
        # Whoever is left over goes with whom it may not.
        pairs += [
            (rows[row], columns[column])
            for row, column in enumerate(chosen)
            if column >= 0 and contested[rows[row], columns[column]]
        ]
    return sorted((int(row), int(column), float(overlaps[row, column])) for row, column in pairs)
