"""A picture and what is known to be in it: what a detector is measured with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.tasks.boxes import Boxes, match


class LabelledPicture(NamedTuple):
    picture: Image.Image
    """Upright, RGB."""
    boxes: npt.NDArray[np.float32]
    """`[n, 4]`: x1, y1, x2, y2 in pixels of the picture."""
    classes: npt.NDArray[np.int64]
    """`[n]`: class ids."""

    def is_answered_by(self, found: Boxes, least_iou: float = 0.5) -> bool:
        """Whether `found` is everything that is in the picture, each of the right class and in its place, and no more.

        `found` is in pixels of the picture.
        """
        truth = Boxes(self.boxes, np.ones(len(self.boxes), np.float32), self.classes)
        return len(match(truth, found, least_iou)) == len(truth) == len(found)
