"""Pictures made for tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002  Pillow's word
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def plain(value: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A picture of one grey value."""
    return Image.new("RGB", size, (value, value, value))


def corners(width: int = 24, height: int = 16) -> Image.Image:
    """Four different quarters: red and green above, blue and white below. No flip or turn leaves it as it is."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)
