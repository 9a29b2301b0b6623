"""The pictures of a proof: the bundled photographs, varied, and the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from gateway.errors import TandemError
from gateway.images.decode import decode
from gateway.images.preprocess import preprocess
from modelkit.spec import InputSpec

PHOTOGRAPHS = Path(__file__).with_name("photographs")
VARIATIONS = 4
"""Pictures made of each photograph, besides the whole of it."""
MOST = 256
"""Pictures of the user's that are looked at, in order of their names."""
_MAX_PIXELS = 50_000_000
_SEED = 20261124


class NoSamples(Exception):
    """The folder of samples cannot be used. The message says why."""


def pictures(samples: Path | None = None) -> tuple[list[str], list[Image.Image]]:
    """Names and pictures, upright RGB: the same every time. Raises NoSamples."""
    named = [*_bundled(), *(_own(samples) if samples is not None else ())]
    return [name for name, _ in named], [picture for _, picture in named]


def tensors(images: Sequence[Image.Image], input_spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Input tensors `[n, height, width, 3]`, by the gateway's own preprocessing."""
    return np.concatenate([preprocess(image, input_spec) for image in images])


def _bundled() -> Iterator[tuple[str, Image.Image]]:
    rng = np.random.default_rng(_SEED)
    for path in sorted(PHOTOGRAPHS.glob("*.jpg")):
        whole = decode(path.read_bytes(), max_pixels=_MAX_PIXELS)
        yield path.name, whole
        for number in range(1, VARIATIONS + 1):
            yield f"{path.name}, variation {number}", _varied(whole, rng)


def _varied(whole: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of the picture, maybe mirrored or negative, in other colours."""
    width, height = (int(side * rng.uniform(0.3, 0.9)) for side in whole.size)
    left, top = int(rng.uniform(0, whole.width - width)), int(rng.uniform(0, whole.height - height))
    part = whole.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        part = ImageOps.mirror(part)
    if rng.random() < 0.25:
        part = ImageOps.invert(part)
    part = ImageEnhance.Color(part).enhance(rng.uniform(0.3, 2.5))
    return ImageEnhance.Brightness(part).enhance(rng.uniform(0.6, 1.4))


def _own(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    if not folder.is_dir():
        raise NoSamples(f"{folder} is not a folder with pictures.")
    found = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[: 4 * MOST]:
        try:
            picture = decode(path.read_bytes(), max_pixels=_MAX_PIXELS)
        except TandemError:
            continue  # a README beside the pictures, say
        yield path.name, picture
        found += 1
        if found == MOST:
            return
    if not found:
        raise NoSamples(f"No file in {folder} is a picture that Tandem reads.")
