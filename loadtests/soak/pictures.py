"""Pictures that are good, broken, and meant badly."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from loadtests.pictures import MODELS, Picture, find

Make = Callable[[random.Random], bytes]

PHOTOGRAPHS = find(MODELS.parent / "modelkit" / "photographs", "")
SAMPLES = {model: [*find(MODELS, model), *PHOTOGRAPHS] for model in ("digits", "shapes")}


def any_of(chance: random.Random) -> Picture:
    return chance.choice(SAMPLES[chance.choice(("digits", "shapes"))])


def truncated(chance: random.Random) -> bytes:
    content = any_of(chance).content
    return content[: chance.randrange(1, len(content) - 100)]


def flipped(chance: random.Random) -> bytes:
    """Some bytes are others than they were."""
    content = bytearray(any_of(chance).content)
    for _ in range(chance.randrange(1, 20)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 20_000))


def bomb(_: random.Random) -> bytes:
    """A small file that says it is 50,000 × 50,000."""
    return _png((50_000, 50_000), [(b"IDAT", zlib.compress(bytes(100_000)))])


def text_bomb(_: random.Random) -> bytes:
    """A small picture with 64 MB of text, compressed to 64 kB."""
    return _png((8, 8), [(b"zTXt", b"Comment\0\0" + _ZEROS), (b"IDAT", zlib.compress(bytes(8 * 25)))])


def long_gif(_: random.Random) -> bytes:
    return _GIF


def wide(chance: random.Random) -> bytes:
    """A picture of several million pixels, whose decoding takes time and memory."""
    return chance.choice(_WIDE)


def _png(size: tuple[int, int], chunks: list[tuple[bytes, bytes]]) -> bytes:
    header = (b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [header, *chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


_ZEROS = zlib.compress(bytes(64_000_000), 9)
_GIF = _encoded(
    Image.new("P", (16, 16)),
    "GIF",
    save_all=True,
    append_images=[Image.new("P", (16, 16), n % 256) for n in range(1, 500)],
)
_WIDE = [
    _encoded(Image.open(io.BytesIO(PHOTOGRAPHS[0].content)).resize((3000, 2000)), form, **options)
    for form, options in {"JPEG": {"quality": 80}, "WEBP": {"quality": 60}}.items()
]
