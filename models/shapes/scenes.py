"""Scenes of coloured shapes with their boxes: the detector is trained and tested on nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from modelkit.labelled import LabelledPicture
from models.shapes.background import random_background, random_noise
from models.shapes.outline import LABELS, Outline, random_outline

MAX_SHAPES = 8
TRAINING = range(6000)
"""Numbers of the scenes to train with."""
HELD_OUT = range(1_000_000, 1_000_300)
"""Numbers of the scenes that are not for training."""
SIDES = (200, 641)
"""Width and height of a scene are anything from the first to below the second, in pixels."""
SIZES = (0.12, 0.45)
"""The longer side of a shape's box, as a fraction of the scene's longer side."""
LEAST_VISIBLE = 0.7
"""The share of a shape's pixels that neither the edge of the scene nor other shapes may hide."""
LEAST_CONTRAST = 60.0
"""How far the shape's colour is from nine tenths of the pixels about it: the length of the difference, of up to 442."""
_ATTEMPTS = 12
_NOBODY = -1

Floats = npt.NDArray[np.float32]


class Canvas:
    """A picture in the making, and whose each pixel is."""

    def __init__(self, background: Floats) -> None:
        self.pixels = background
        self._owner: npt.NDArray[np.int64] = np.full(background.shape[:2], _NOBODY, dtype=np.int64)
        self._areas: list[int] = []

    def place(self, outline: Outline, left: int, top: int, rng: np.random.Generator) -> bool:
        """Paint a shape in a random colour, its box's corner at `left`, `top`; False if too much would be hidden."""
        height, width = self._owner.shape
        own_width, own_height = outline.size
        rows = slice(max(top, 0), min(top + own_height, height))
        columns = slice(max(left, 0), min(left + own_width, width))
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        whole = outline.cover()
        cover, owner = whole[inside], self._owner[rows, columns]
        covered, area = cover >= 0.5, int((whole >= 0.5).sum())
        hides = [int((covered & (owner == other)).sum()) for other in range(len(self._areas))]
        if covered.sum() < LEAST_VISIBLE * area or any(
            self._visible(other) - hidden < LEAST_VISIBLE * self._areas[other] for other, hidden in enumerate(hides)
        ):
            return False
        pixels = self.pixels[rows, columns]
        inner = outline.cover(0.85)[inside] if outline.hole is None and rng.random() < 0.25 else cover
        colour = _contrasting(pixels, rng)
        for layer, paint in ((cover, colour * rng.uniform(0.4, 0.8)), (inner, colour)):
            pixels += (paint.astype(np.float32) - pixels) * layer[..., np.newaxis]
        owner[covered] = len(self._areas)
        self._areas.append(area)
        return True

    def boxes(self) -> Floats:
        """The boxes of the shapes, in order of painting: x1, y1, x2, y2 in pixels, tight about what is visible.

        That is the whole pixels that a shape covers at least by half, and that no later shape hides.
        """
        found = []
        for shape in range(len(self._areas)):
            y, x = np.nonzero(self._owner == shape)
            found.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
        return np.array(found, dtype=np.float32).reshape(-1, 4)

    def _visible(self, shape: int) -> int:
        return int((self._owner == shape).sum())


def draw(seed: int) -> LabelledPicture:
    """The scene of that number, the same each time: 0 to MAX_SHAPES shapes, some overlapping or cut by the edge."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(*SIDES, 2).tolist()
    canvas = Canvas(random_background(width, height, rng))
    classes = []
    for _ in range(rng.integers(0, MAX_SHAPES + 1)):
        class_id = int(rng.integers(len(LABELS)))
        size = max(width, height) * np.exp(rng.uniform(*np.log(SIZES)))
        outline = random_outline(class_id, min(size, 0.8 * min(width, height)), rng)
        for _ in range(_ATTEMPTS):
            own = np.array(outline.size)
            left, top = (int(edge) for edge in rng.uniform(-0.15 * own, (width, height) - 0.85 * own))
            if canvas.place(outline, left, top, rng):
                classes.append(class_id)
                break
    pixels = canvas.pixels + random_noise(width, height, rng)
    picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return LabelledPicture(picture, canvas.boxes(), np.array(classes, dtype=np.int64))


def _contrasting(pixels: Floats, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random colour that stands out from `pixels`: the first that does, or of those tried the one that does most."""
    sample = pixels[::4, ::4].reshape(-1, 3)
    best, contrast = np.zeros(3), -1.0
    for _ in range(_ATTEMPTS):
        colour = rng.uniform(0, 255, 3)
        found = float(np.quantile(np.linalg.norm(sample - colour, axis=1), 0.1))
        if found > contrast:
            best, contrast = colour, found
        if contrast >= LEAST_CONTRAST:
            break
    return best
