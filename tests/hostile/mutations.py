"""A file → a file like it that nobody meant. Knows the formats' parts, so that a mutant gets past the first check."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

_ODD = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST_STEPS = 4
Parts = list[bytes]


def mutant(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Of one of `seeds`, changed in one to four ways."""
    data = chance.choice(seeds)
    for _ in range(chance.randint(1, _MOST_STEPS)):
        data = chance.choice(_WAYS)(data, seeds, chance)
    return data


_Way = Callable[[bytes, Sequence[bytes], random.Random], bytes]


def _place(data: bytes, chance: random.Random) -> int:
    """Anywhere, half of the time near the beginning, where the headers are."""
    return chance.randrange(max(1, min(len(data), 128) if chance.random() < 0.5 else len(data)))


def _flip(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 16) if data else 0):
        changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _number(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """An odd number of one to four bytes, of either byte order."""
    size, place = chance.choice((1, 2, 4)), _place(data, chance)
    number = chance.choice(_ODD) % (1 << 8 * size)
    return data[:place] + number.to_bytes(size, chance.choice(("little", "big"))) + data[place + size :]


def _cut(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _without(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + data[place + chance.randint(1, 64) :]


def _twice(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + data[place : place + chance.randint(1, 512)] * chance.choice((2, 3, 50)) + data[place:]


def _noise(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    place, length = _place(data, chance), chance.randint(1, 64)
    return data[:place] + chance.randbytes(length) + data[place + length * chance.randrange(2) :]


def _spliced(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(seeds)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


def _parts_changed(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A part is left out, doubled, moved, taken from another file, or changed inside; lengths and sums stay right."""
    split, join = _FORMATS.get(data[:2], (_no_parts, b"".join))
    parts = split(data)
    if len(parts) < 3:
        return _flip(data, seeds, chance)
    at = chance.randrange(1, len(parts))
    match chance.randrange(5):
        case 0:
            del parts[at]
        case 1:
            parts[at:at] = [parts[at]] * chance.choice((1, 2, 100))
        case 2:
            parts.insert(chance.randrange(1, len(parts)), parts.pop(at))
        case 3:
            parts[at:at] = [part for part in split(chance.choice(seeds))[1:] if chance.random() < 0.3]
        case _:
            head = _HEADS[data[:2]]
            way = chance.choice((_flip, _number, _cut, _noise, _twice))
            parts[at] = parts[at][:head] + way(parts[at][head:], seeds, chance)
    return join(parts)


def _no_parts(data: bytes) -> Parts:
    return []


def _png_parts(data: bytes) -> Parts:
    """Signature, then kinds with their bodies."""
    if not data.startswith(b"\x89PNG"):
        return []
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        parts.append(data[place + 4 : end])
        place = end + 4
    return parts


def _png_joined(parts: Parts) -> bytes:
    chunks = (
        struct.pack(">I", max(0, len(part) - 4)) + part + struct.pack(">I", zlib.crc32(part)) for part in parts[1:]
    )
    return parts[0] + b"".join(chunks)


def _riff_parts(data: bytes) -> Parts:
    if not data.startswith(b"RIFF"):
        return []
    parts, place = [data[:12]], 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        parts.append(data[place : place + 4] + data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    return parts


def _riff_joined(parts: Parts) -> bytes:
    chunks = [
        part[:4] + struct.pack("<I", max(0, len(part) - 4)) + part[4:] + bytes(len(part) % 2) for part in parts[1:]
    ]
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP" + b"".join(chunks)


def _jpeg_parts(data: bytes) -> Parts:
    """Each with its marker; what follows a scan's header belongs to it."""
    if not data.startswith(b"\xff\xd8"):
        return []
    parts, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, end = data[place + 1], place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xDA:
            while end + 2 < len(data) and (data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8))):
                end += 1
        parts.append(data[place : place + 2] + data[place + 4 : end])
        place = end
    return parts


def _jpeg_joined(parts: Parts) -> bytes:
    segments = []
    for part in parts[1:]:
        length = 2 + len(part) - 2 if part[1:2] != b"\xda" else 2 + 4 + 2 * (part[2] if len(part) > 2 else 0)
        segments.append(part[:2] + struct.pack(">H", min(max(length, 2), 0xFFFF)) + part[2:])
    return parts[0] + b"".join(segments) + b"\xff\xd9"


def _tiff_parts(data: bytes) -> Parts:
    """The file, then the entries of its first directory, which begins where the first part says."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 10:
        return []
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place) if place + 2 <= len(data) else (0,)
    return [data, *(data[at : at + 12] for at in range(place + 2, place + 2 + 12 * count, 12) if at + 12 <= len(data))]


def _tiff_joined(parts: Parts) -> bytes:
    data, order = parts[0], "<" if parts[0][:2] == b"II" else ">"
    entries = [part.ljust(12, b"\0")[:12] for part in parts[1:] if part]
    directory = struct.pack(order + "H", min(len(entries), 0xFFFF)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack(order + "I", len(data)) + data[8:] + directory


_FORMATS: dict[bytes, tuple[Callable[[bytes], Parts], Callable[[Parts], bytes]]] = {
    b"\x89P": (_png_parts, _png_joined),
    b"RI": (_riff_parts, _riff_joined),
    b"\xff\xd8": (_jpeg_parts, _jpeg_joined),
    b"II": (_tiff_parts, _tiff_joined),
    b"MM": (_tiff_parts, _tiff_joined),
}
"""By how a file begins."""
_HEADS = {b"\x89P": 4, b"RI": 4, b"\xff\xd8": 2, b"II": 2, b"MM": 2}
"""Bytes of a part that say what it is: left alone where its inside is changed."""
_WAYS: tuple[_Way, ...] = (_flip, _number, _cut, _without, _twice, _noise, _spliced, *[_parts_changed] * 7)
