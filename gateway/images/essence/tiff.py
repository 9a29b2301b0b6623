"""TIFF 6.0 and BigTIFF: a directory of tags that point at values and pixels. Only the first directory is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.errors import UnsupportedImage
from gateway.images.essence.base import Essence, corrupt, in_too_many_parts

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_MAX_ENTRIES = 4096
_MAX_STRIPS = 20_000
"""Also of tiles. Of 8 kB each, as the standard advises, they hold 160 MB."""
_MAX_VALUES = 64
_MAX_TABLES = 65_536
"""Bytes of the tables of JPEG within TIFF."""

_WIDTH, _LENGTH, _COMPRESSION, _ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 259, 274, 322, 323
_MOST_OF = {
    **dict.fromkeys((258, 262, 266, 277, 278, 284, 292, 293, 317, 332, 338, 339, 529, 530, 531, 532), _MAX_VALUES),
    **dict.fromkeys((_WIDTH, _LENGTH, _COMPRESSION, _TILE_WIDTH, _TILE_LENGTH), 1),
    **dict.fromkeys((273, 279, 324, 325), _MAX_STRIPS),  # where the strips and tiles are, and how long
    320: 3 * 65_536,  # the palette
    347: _MAX_TABLES,
}
"""The tags that pixels are made of, and the most values of each."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""
_WHOLE_NUMBERS = frozenset((3, 4, 16))
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000))
"""None, three of fax, LZW, JPEG, deflate, PackBits, deflate, Zstandard."""
_MAX_PADDING = 1 << 24
"""Pixels of tiles beyond the picture's edges, for small pictures in large tiles."""


@dataclass(frozen=True)
class _Layout:
    """How numbers are written."""

    order: Literal["little", "big"]
    big: bool
    """BigTIFF: offsets and counts have 8 bytes."""

    @property
    def offset(self) -> int:
        """Bytes of an offset."""
        return 8 if self.big else 4

    def read(self, data: bytes) -> int:
        return int.from_bytes(data, self.order)

    def write(self, number: int, size: int) -> bytes:
        return number.to_bytes(size, self.order)


def essence(data: bytes) -> Essence:
    """The same file with a directory of what is needed of the first one. Raises InvalidImage, UnsupportedImage."""
    layout = _Layout("little" if data[:2] == b"II" else "big", big=43 in data[2:4])
    header = 8 if layout.big else 4
    place = layout.read(data[header : header + layout.offset])
    found = dict(_entries(data, layout, place))
    kept = {tag: entry for tag, entry in sorted(found.items()) if tag in _MOST_OF}
    for tag, entry in kept.items():
        _check(tag, entry, layout, len(data))

    def value(tag: int, default: int) -> int:
        return _value(found[tag], layout) if tag in found else default

    if value(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise UnsupportedImage("The TIFF's compression is not read here. Save it with LZW or deflate, or as PNG.")
    width, height = size = value(_WIDTH, 0), value(_LENGTH, 0)
    across, down = value(_TILE_WIDTH, width) or width, value(_TILE_LENGTH, height) or height
    if _padded(width, across) * _padded(height, down) > 4 * width * height + _MAX_PADDING:
        raise corrupt()

    # In the place of the old one, which is at least as long: behind the file, it would be taken for missing pixels.
    directory = b"".join((layout.write(len(kept), 8 if layout.big else 2), *kept.values(), bytes(layout.offset)))
    view = memoryview(data)
    whole = b"".join((view[:place], directory, view[place + len(directory) :]))
    orientation = value(_ORIENTATION, 1)
    return Essence("TIFF", whole, size, orientation if 1 <= orientation <= 8 else 1)


def _padded(length: int, tile: int) -> int:
    """The least whole number of tiles, in pixels."""
    return -(-length // tile) * tile if tile else 0


def _entries(data: bytes, layout: _Layout, place: int) -> Iterator[tuple[int, bytes]]:
    """The directory's entries by their tags: type, count, and value or offset are in them."""
    length, of_count = (20, 8) if layout.big else (12, 2)
    start = place + of_count
    count = layout.read(data[place:start])
    if count > _MAX_ENTRIES:
        raise in_too_many_parts("tags")
    if not count or place < (16 if layout.big else 8) or start + count * length + layout.offset > len(data):
        raise corrupt()
    # Backwards, so that the first one of a tag is the one that counts.
    for at in range(start + (count - 1) * length, start - 1, -length):
        yield layout.read(data[at : at + 2]), data[at : at + length]


def _check(tag: int, entry: bytes, layout: _Layout, length: int) -> None:
    """Raises InvalidImage where its values are too many, or not in the file."""
    kind, count = layout.read(entry[2:4]), layout.read(entry[4 : 4 + layout.offset])
    size = _SIZES.get(kind)
    if size is None or not count:
        raise corrupt()
    if _MOST_OF[tag] == 1 and (kind not in _WHOLE_NUMBERS or size > layout.offset):
        raise corrupt()
    if count > _MOST_OF[tag]:
        raise in_too_many_parts("strips, tiles or values of a tag")
    if size * count > layout.offset and layout.read(entry[-layout.offset :]) + size * count > length:
        raise corrupt()


def _value(entry: bytes, layout: _Layout) -> int:
    """Of an entry with a single number."""
    size = _SIZES.get(layout.read(entry[2:4]), layout.offset)
    field = entry[-layout.offset :]
    return layout.read(field[: min(size, layout.offset)])
