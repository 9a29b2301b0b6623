"""How a picture is put upright: the one thing in EXIF that changes what is seen."""

from __future__ import annotations

from typing import Literal

_PREFIX = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4
_MAX_ENTRIES = 1000


def orientation_of(exif: bytes) -> int:
    """1 where the block is damaged or does not say: the pixels are then taken as they are stored.

    `exif` begins with a TIFF header (EXIF 2.3, 4.5.2), in JPEG and some other files after `Exif` and two zeros.
    """
    exif = exif.removeprefix(_PREFIX)
    order: Literal["little", "big"]
    match exif[:4]:
        case b"II*\x00":
            order = "little"
        case b"MM\x00*":
            order = "big"
        case _:
            return 1
    start = int.from_bytes(exif[4:8], order)
    entries = int.from_bytes(exif[start : start + 2], order)
    for place in range(start + 2, start + 2 + 12 * min(entries, _MAX_ENTRIES), 12):
        entry = exif[place : place + 12]
        if len(entry) < 12:
            break
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            kind = int.from_bytes(entry[2:4], order)
            value = int.from_bytes(entry[8 : 10 if kind == _SHORT else 12], order)
            return value if kind in (_SHORT, _LONG) and 1 <= value <= 8 else 1
    return 1
