"""The pictures that a load test uploads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MODELS = Path(__file__).resolve().parents[1] / "models"
_MEDIA_TYPES = {
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}


class Picture(NamedTuple):
    content: bytes
    media_type: str


class NoPictures(Exception):
    """There is nothing to upload; the message says where there could be."""


def find(folder: Path, model: str) -> list[Picture]:
    """The pictures in a folder, or, if it has none, those in its `MODEL/samples`. Raises NoPictures."""
    samples = folder / model / "samples"
    for place in (folder, samples):
        files = sorted(path for path in place.glob("*") if path.suffix.lower() in _MEDIA_TYPES and path.is_file())
        if files:
            return [Picture(path.read_bytes(), _MEDIA_TYPES[path.suffix.lower()]) for path in files]
    kinds = ", ".join(_MEDIA_TYPES)
    raise NoPictures(f"no picture in {folder} nor in {samples}: with --images, name a folder that has some ({kinds})")
