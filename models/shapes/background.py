"""What scenes are drawn on: plain colours, gradients, stripes, blotches, and noise over all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]


def random_background(width: int, height: int, rng: np.random.Generator) -> Floats:
    """Pixels `[height, width, 3]`, from about 0 to 255, without noise."""
    first = _random_paper(rng)
    second = np.clip(first + rng.normal(0, 50, 3), 0, 255)
    patterns = (_plain, _gradient, _stripes, _blotches)
    mixture = patterns[rng.integers(len(patterns))](width, height, rng)[..., np.newaxis]
    pixels: Floats = (first + (second - first) * mixture).astype(np.float32)
    return pixels


def random_noise(width: int, height: int, rng: np.random.Generator) -> Floats:
    """Noise `[height, width, 3]` about 0, of a random strength, as coarse as one pixel or a few."""
    grain = int(rng.integers(1, 5))
    strength = rng.uniform(0, 14)
    noise: Floats = rng.standard_normal((-(-height // grain), -(-width // grain), 3), dtype=np.float32)
    return np.repeat(np.repeat(noise, grain, axis=0), grain, axis=1)[:height, :width] * np.float32(strength)


def _random_paper(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """White or nearly so as often as a drawing program has it, black sometimes, else any colour."""
    kind = rng.random()
    if kind < 0.2:
        return rng.uniform(235, 255) + np.zeros(3)
    return np.zeros(3) if kind < 0.25 else rng.uniform(0, 255, 3)


def _plain(width: int, height: int, _: np.random.Generator) -> Floats:
    return np.zeros((height, width), dtype=np.float32)


def _along(width: int, height: int, rng: np.random.Generator) -> Floats:
    """The distance of each pixel along a random direction, in pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along: Floats = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    return along


def _gradient(width: int, height: int, rng: np.random.Generator) -> Floats:
    along = _along(width, height, rng)
    gradient: Floats = (along - along.min()) / np.float32(np.ptp(along))
    return gradient


def _stripes(width: int, height: int, rng: np.random.Generator) -> Floats:
    waves = np.sin(_along(width, height, rng) * np.float32(2 * np.pi / rng.uniform(8, 80)))
    stripes: Floats = np.clip(waves * np.float32(rng.uniform(0.5, 4)) / 2 + 0.5, 0, 1)
    return stripes


def _blotches(width: int, height: int, rng: np.random.Generator) -> Floats:
    coarse = Image.fromarray(rng.random(rng.integers(3, 13, 2), dtype=np.float32))
    blotches: Floats = np.clip(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)
    return blotches
