"""WebP (RFC 9649): chunks in a RIFF file."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.images.essence.base import Essence, corrupt, in_too_many_parts
from gateway.images.essence.exif import orientation_of

_Chunk = tuple[bytes, memoryview | bytes]
"""Kind and content."""
_MAX_CHUNKS = 20_000
_ANIMATED, _ALPHA = 0x02, 0x10
"""Flags of an extended file; others announce profile, EXIF and XMP."""
_PIXELS = frozenset((b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"))
"""The first of each is what the first frame is made of."""


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def essence(data: bytes) -> Essence:
    """The bitstream, of an animation the first frame's. Raises InvalidImage."""
    kind, body, place = _chunk(data, 12)
    if kind == b"VP8 ":
        if len(body) < 10:
            raise corrupt()
        size = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        return Essence("WEBP", _file([(kind, body)]), size)
    if kind == b"VP8L":
        if len(body) < 5:
            raise corrupt()
        bits = int.from_bytes(body[1:5], "little")
        return Essence("WEBP", _file([(kind, body)]), ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    if kind != b"VP8X" or len(body) != 10:
        raise corrupt()
    size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    kept: list[_Chunk] = [(kind, bytes([body[0] & (_ANIMATED | _ALPHA)]) + bytes(body[1:]))]
    seen, orientation, end = {kind}, 1, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(_MAX_CHUNKS):
        if place + 8 > end:
            return Essence("WEBP", _file(kept), size, orientation)
        kind, body, place = _chunk(data, place)
        if kind in seen:
            continue
        seen.add(kind)
        if kind in _PIXELS:
            kept.append((kind, body))
        elif kind == b"EXIF":
            orientation = orientation_of(bytes(body))
    raise in_too_many_parts("chunks")


def _chunk(data: bytes, place: int) -> tuple[bytes, memoryview | bytes, int]:
    """Kind and content of the chunk at `place`, and where the next one is."""
    start = place + 8
    end = start + int.from_bytes(data[place + 4 : start], "little")
    if start > len(data) or end > len(data):
        raise corrupt()
    return data[place : place + 4], memoryview(data)[start:end], end + (end - start) % 2


def _file(chunks: Sequence[_Chunk]) -> bytes:
    parts: list[memoryview | bytes] = [b"WEBP"]
    for kind, body in chunks:
        parts += (kind, len(body).to_bytes(4, "little"), body, bytes(len(body) % 2))
    return b"".join((b"RIFF", sum(map(len, parts)).to_bytes(4, "little"), *parts))
