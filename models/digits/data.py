"""The scans: scikit-learn's copy of the UCI optical digits, their split, and the training pictures made of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from models.digits.recipe import INPUT

SEED = 20240229
HELD_OUT = 0.2
COPIES = 24
"""Training pictures made of each scan."""

Bytes = npt.NDArray[np.uint8]
_FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


class Scans(NamedTuple):
    pictures: Bytes
    """`[n, 8, 8]`, grey: light digits on black."""
    labels: Bytes
    """`[n]`, 0 to 9."""


class Split(NamedTuple):
    train: Scans
    held_out: Scans


def split() -> Split:
    """The 1797 scans as 8-bit grey pictures, 20 % of each digit held out; the same split every time."""
    data = load_digits()
    pictures = np.rint(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.uint8)
    train, held_out = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SEED)
    return Split(Scans(pictures[train], labels[train]), Scans(pictures[held_out], labels[held_out]))


def augmented(scans: Scans) -> tuple[Bytes, Bytes]:
    """Input tensors `[n * COPIES, height, width, 3]` and labels to train with: each scan once as it is, and varied.

    Varied in what an uploaded picture may differ in: its size and how it was scaled up, position, slant and size of the
    digit, ink and paper colour (dark on light as well), noise. Each then goes through the resize that the gateway does.
    """
    rng = np.random.default_rng(SEED)
    pictures = [
        _fit(Image.fromarray(scan).convert("RGB")) if copy == 0 else _varied(scan, rng)
        for copy in range(COPIES)
        for scan in scans.pictures
    ]
    return np.stack(pictures), np.tile(scans.labels, COPIES)


def _fit(picture: Image.Image) -> Bytes:
    return np.asarray(picture.resize((INPUT.width, INPUT.height), Image.Resampling.BILINEAR))


def _varied(scan: Bytes, rng: np.random.Generator) -> Bytes:
    side = int(rng.choice([8, 16, 28, 64, 128, 256]))
    grey = Image.fromarray(scan).resize((side, side), _FILTERS[rng.integers(len(_FILTERS))])
    if rng.random() < 0.85:
        grey = _moved(grey, rng)
    ink = np.asarray(grey, dtype=np.float32)[..., None] / 255
    dark, light = rng.uniform(0, 80, 3), rng.uniform(150, 255, 3)
    if rng.random() < 0.4:
        dark, light = np.zeros(3), np.full(3, 255.0)
    paper, pen = (light, dark) if rng.random() < 0.4 else (dark, light)
    coloured = paper + (pen - paper) * ink + rng.normal(0, rng.uniform(0, 8), ink.shape)
    return _fit(Image.fromarray(np.clip(np.rint(coloured), 0, 255).astype(np.uint8)))


def _moved(grey: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`grey` turned, slanted, scaled and shifted a little, black around it."""
    side = grey.width
    turn, slant = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.12, 0.12)
    scale_x, scale_y = 1 / rng.uniform(0.8, 1.12, 2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array(
        [[scale_x, slant], [0, scale_y]]
    )
    centre = np.full(2, side / 2)
    offset = centre - matrix @ (centre + rng.uniform(-0.08, 0.08, 2) * side)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return grey.transform(grey.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
