"""Masks as runs: small to keep, quick to compare, and COCO's run-length encoding to send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mask:
    """Which pixels of a picture belong to an object."""

    height: int
    width: int
    """Of the picture."""
    edges: NDArray[np.int64]
    """Where runs of its pixels start and end, in turn, counted down the columns, the left one first."""

    @classmethod
    def of(cls, patch: NDArray[np.bool_], x: int, y: int, size: tuple[int, int]) -> Self:
        """The mask of a picture of `size` (width, height) that is `patch` at (x, y) and false elsewhere."""
        width, height = size
        columns = patch.T
        if len(patch) < height:
            columns = np.pad(columns, ((0, 0), (0, 1)))  # a run ends with its column
        places = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False))
        column, row = np.divmod(places, columns.shape[1] or 1)
        return cls(height, width, (column + x) * height + y + row)

    @classmethod
    def read(cls, size: tuple[int, int], counts: str) -> Self:
        """From what COCO calls `size` (height and width of the picture) and `counts` (see there)."""
        height, width = size
        digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - ord("0")
        last = digits & 0x20 == 0
        starts = np.flatnonzero(np.concatenate(([True], last[:-1])))
        place = np.arange(len(digits)) - np.repeat(starts, np.diff(starts, append=len(digits)))
        runs = np.add.reduceat((digits & 0x1F) << 5 * place, starts)
        runs -= (digits[last] & 0x10 > 0) * (1 << 5 * (place[last] + 1))  # two's complement
        for chain in (runs[1::2], runs[2::2]):
            np.cumsum(chain, out=chain)
        edges = np.cumsum(runs)
        return cls(height, width, edges[: len(edges) // 2 * 2])

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int((self.edges[1::2] - self.edges[::2]).sum())

    def iou(self, other: Mask) -> float:
        """Intersection over union with another mask of the same picture."""
        edges = np.concatenate((self.edges, other.edges))
        order = np.argsort(edges, kind="stable")
        steps = np.tile((1, -1), len(edges) // 2)[order]
        covered = np.cumsum(steps)[:-1]
        lengths = np.diff(edges[order])
        union = int(lengths[covered > 0].sum())
        return int(lengths[covered > 1].sum()) / union if union else 0.0

    def columns(self) -> tuple[int, NDArray[np.bool_]]:
        """The pixels `[height, n]` of the n columns that it has pixels in, and which column is the first."""
        if not len(self.edges):
            return 0, np.zeros((self.height, 0), dtype=bool)
        first, last = int(self.edges[0]) // self.height, (int(self.edges[-1]) - 1) // self.height
        steps = np.zeros((last - first + 1) * self.height + 1, dtype=np.int8)
        steps[self.edges - first * self.height] = np.tile((1, -1), len(self.edges) // 2)
        return first, np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(-1, self.height).T

    def counts(self) -> str:
        """COCO's compressed run-length encoding: how long the runs are outside and inside of the object, in turn.

        From the fourth run on, it is the difference from the one two before. Numbers are written in digits of 5 bits,
        the lowest first; a 6th bit says that another digit follows. Digits are characters, from `0` on.
        """
        runs = np.diff(self.edges, prepend=0, append=self.height * self.width)
        if runs[-1] == 0 and len(runs) > 1:
            runs = runs[:-1]
        runs[3:] -= runs[1:-2].copy()
        digits, wanted = [], [np.ones(len(runs), dtype=bool)]
        while wanted[-1].any():
            digit = runs & 0x1F
            runs = runs >> 5
            more = np.where(digit & 0x10, runs != -1, runs != 0)  # the 5th bit is the sign, once no digit follows
            digits.append(digit | more << 5)
            wanted.append(more)
        text = np.stack(digits, axis=1)[np.stack(wanted[:-1], axis=1)] + ord("0")
        return bytes(text.astype(np.uint8)).decode("ascii")
