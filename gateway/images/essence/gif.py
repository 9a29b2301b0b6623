"""GIF (version 89a): blocks."""

from __future__ import annotations

from gateway.images.essence.base import Essence, corrupt, in_too_many_parts

SIGNATURES = (b"GIF87a", b"GIF89a")

_MAX_BLOCKS = 100_000
"""Before the first frame. A megabyte of metadata is 4,000."""
_EXTENSION, _FRAME = 0x21, 0x2C
_CONTROL = 0xF9
_TRANSPARENT = 0x01


def essence(data: bytes) -> Essence:
    """Screen, palettes, transparency, and the first frame: Pillow reads no further. Raises InvalidImage."""
    if len(data) < 13:
        raise corrupt()
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    start = place = 13 + _table(data[10])
    control = b""
    for _ in range(_MAX_BLOCKS):
        kind = data[place : place + 1]
        if kind == bytes([_FRAME]):
            return _first_frame(data, start, place, control, (width, height))
        if kind != bytes([_EXTENSION]):
            raise corrupt()
        label, place = data[place + 1 : place + 2], place + 2
        if label == bytes([_CONTROL]) and len(data) > place + 5 and data[place] >= 4:
            # How the frame is taken away again does not matter: only the first one is shown.
            control = bytes((_EXTENSION, _CONTROL, 4, data[place + 1] & _TRANSPARENT, 0, 0, data[place + 4], 0))
        place = _behind_sub_blocks(data, place)
    raise in_too_many_parts("blocks")


def _first_frame(data: bytes, start: int, place: int, control: bytes, screen: tuple[int, int]) -> Essence:
    frame = data[place : place + 10]
    if len(frame) < 10:
        raise corrupt()
    left, top, width, height = (int.from_bytes(frame[at : at + 2], "little") for at in (1, 3, 5, 7))
    size = max(screen[0], left + width), max(screen[1], top + height)  # as Pillow has it
    return Essence("GIF", b"".join((data[:start], control, memoryview(data)[place:])), size)


def _table(flags: int) -> int:
    """Bytes of the palette that they announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_sub_blocks(data: bytes, place: int) -> int:
    for _ in range(_MAX_BLOCKS):
        if place >= len(data):
            raise corrupt()
        length = data[place]
        place += 1 + length
        if not length:
            return place
    raise in_too_many_parts("blocks")
