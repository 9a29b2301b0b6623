"""Which operations of a graph are computed in 16 bits: one rule for both runtimes. Standard library only.

- What does the work (convolutions, products of matrices) is computed in 16 bits, weights too, but for the last of it:
  where no other follows, its result is the answer, and an answer of 8 significant bits has ties.
- What lies between two of those, and can be computed in 16 bits without harm, is.
- Everything else stays in 32 bits: scaling of pixels, softmax, boxes, and every operation that is not known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Irreducible(Exception):
    """The graph cannot be put into 16 bits. The message says why, and what to do."""


class Operation(NamedTuple):
    kind: str
    reads: Collection[int]
    """Places, in the sequence, of the operations whose results it reads: all before its own."""


def reducible(operations: Sequence[Operation], *, working: Collection[str], passing: Collection[str]) -> set[int]:
    """Places of the operations to compute in 16 bits; `working` and `passing` name their kinds."""
    followed = [False] * len(operations)
    """By work of any kind."""
    for place in range(len(operations) - 1, -1, -1):
        works = operations[place].kind in working
        for read in operations[place].reads:
            followed[read] |= works or followed[place]
    reduced = {place for place, each in enumerate(operations) if each.kind in working and followed[place]}
    between = [False] * len(operations)
    """Whether its result comes to such work by what only passes it on."""
    for place in range(len(operations) - 1, -1, -1):
        if place in reduced or (operations[place].kind in passing and between[place]):
            for read in operations[place].reads:
                between[read] = True
    for place, each in enumerate(operations):
        if each.kind in passing and between[place] and not reduced.isdisjoint(each.reads):
            reduced.add(place)
    return reduced
