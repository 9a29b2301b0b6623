"""The six shapes: their outlines, and the pixels that one covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
LABELS = ("circle", "square", "triangle", "star", "cross", "ring")
SUPERSAMPLING = 4
"""Each pixel's cover is measured in this many rows and columns."""


@dataclass(frozen=True)
class Outline:
    """Polygons, in pixels from the upper left corner of the outline's own bounding box."""

    outer: Points
    """`[n, 2]`, x and y."""
    hole: Points | None
    """A ring's: what is not of the shape."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in whole pixels."""
        width, height = np.ceil(self.outer.max(axis=0)).astype(int)
        return int(width), int(height)

    def cover(self, scale: float = 1.0) -> Floats:
        """How much of each pixel the shape covers, from 0 to 1, `[height, width]`; of a shape of `scale` its size,
        about the same middle."""
        width, height = self.size
        mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        draw = ImageDraw.Draw(mask)
        middle = self.outer.max(axis=0) / 2
        for points, ink in ((self.outer, 255), (self.hole, 0)):
            if points is not None:
                scaled = ((points - middle) * scale + middle) * SUPERSAMPLING
                draw.polygon([(float(x), float(y)) for x, y in scaled], fill=ink)
        return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)


def random_outline(class_id: int, longer_side: float, rng: np.random.Generator) -> Outline:
    """A shape of the class, turned by any angle, somewhat longer than wide, whose box is `longer_side` pixels long."""
    outer, hole = _unit(class_id, rng)
    turn, stretch = rng.uniform(0, 2 * np.pi), np.diag([1.0, rng.uniform(0.8, 1.0)])
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ stretch
    outer = outer @ matrix.T
    corner = outer.min(axis=0)
    scale = longer_side / np.ptp(outer, axis=0).max()
    return Outline((outer - corner) * scale, None if hole is None else (hole @ matrix.T - corner) * scale)


def _unit(class_id: int, rng: np.random.Generator) -> tuple[Points, Points | None]:
    match LABELS[class_id]:
        case "circle":
            return _regular(64), None
        case "square":
            return _regular(4, start=np.pi / 4), None
        case "triangle":
            return _regular(3), None
        case "star":
            points = _regular(10)
            points[1::2] *= rng.uniform(0.38, 0.5)
            return points, None
        case "cross":
            arm = rng.uniform(0.25, 0.4)
            quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
            turns = [np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), times) for times in range(4)]
            return np.concatenate([quarter @ turn.T for turn in turns]), None
        case _:
            return _regular(64), _regular(64) * rng.uniform(0.5, 0.72)


def _regular(corners: int, start: float = 0.0) -> Points:
    angles = start + np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
