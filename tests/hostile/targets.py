"""What the fuzzer makes and whom it gives it to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import TandemError
from gateway.images.decode import decode
from gateway.images.preprocess import preprocess
from modelkit.spec import InputSpec
from tests.hostile.mutations import mutant
from tests.hostile.seeds import pictures

MAX_PIXELS = 4_000_000
_SPECS = (
    InputSpec(height=32, width=48),
    InputSpec(height=32, width=48, fit="crop", shorter_side=48),
    InputSpec(height=32, width=48, fit="letterbox", antialias=False),
)


@dataclass(frozen=True)
class Target:
    make: Callable[[random.Random], tuple[str, bytes]]
    """What it is a mutant of, and the mutant."""
    run: Callable[[bytes], str]
    """What became of it, in a word. Raises where that should not have happened."""


def _picture() -> Target:
    every = pictures()
    seeds = {
        form: [data for name, data in every.items() if name.startswith(form)]
        for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    }

    def make(chance: random.Random) -> tuple[str, bytes]:
        form = chance.choice(list(seeds))
        return form, mutant(seeds[form], chance)

    return Target(make, _decoded)


def _decoded(data: bytes) -> str:
    try:
        image = decode(data, max_pixels=MAX_PIXELS)
    except TandemError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return error.code
    if image.mode != "RGB" or not 0 < image.width * image.height <= MAX_PIXELS:
        raise AssertionError(f"{image.mode}, {image.size}")
    for spec in _SPECS:
        tensor = preprocess(image, spec)
        if tensor.shape != (1, 32, 48, 3):
            raise AssertionError(f"{tensor.shape} of {image.size}")
    return "decoded"


TARGETS: dict[str, Callable[[], Target]] = {"pictures": _picture}
