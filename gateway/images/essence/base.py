"""What all formats have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.errors import InvalidImage

Form = Literal["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]
"""As Pillow calls it."""


@dataclass(frozen=True)
class Essence:
    form: Form
    data: bytes
    """A file of that format, with the first frame and nothing else."""
    size: tuple[int, int]
    """Width and height as they are stored, before it is put upright. Not checked: it is what the file says."""
    orientation: int = 1
    """By EXIF: 1 is upright."""


def corrupt() -> InvalidImage:
    return InvalidImage("The picture is truncated or corrupt: it could not be decoded. Send the whole file.")


def in_too_many_parts(parts: str) -> InvalidImage:
    """`parts` are the format's own, such as chunks."""
    return InvalidImage(
        f"The picture's file has more {parts} than any picture needs. Save it anew with an image editor."
    )
