"""JPEG (ITU-T T.81, annex B): marker segments, then scans."""

from __future__ import annotations

import re

from gateway.errors import InvalidImage, UnsupportedImage
from gateway.images.essence.base import Essence, corrupt, in_too_many_parts
from gateway.images.essence.exif import orientation_of

SIGNATURE = b"\xff\xd8\xff"

MAX_SCANS = 100
"""Each scan passes over the whole picture, however few bytes it has. Encoders make about ten."""
_MAX_SEGMENTS = 1000
"""20 MB of segments of full length are 320."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_SOI, _EOI, _SOS, _DQT, _DHT, _DAC, _DRI = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xCC, 0xDD
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers without a segment."""
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
"""Baseline, extended and progressive; the last two with arithmetic coding."""
_PROGRESSIVE = frozenset((0xC2, 0xCA))
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - _FRAMES - {_DHT, _DAC}
_TABLES = frozenset((_DQT, _DHT, _DAC, _DRI))


def essence(data: bytes) -> Essence:
    """Tables, frame and scans, and what says how the colours are coded. Raises InvalidImage, UnsupportedImage."""
    kept: list[bytes | memoryview] = [data[:2]]
    size, orientation, end = None, 1, 2
    components, progressive = 0, False
    for _ in range(_MAX_SEGMENTS):
        marker, place, end = _segment(data, end)
        if marker in _ALONE:
            continue
        body = data[place + 2 : end]
        if marker == _SOS:
            if size is None or not body:
                raise corrupt()
            if progressive or body[0] < components:  # else there is one, and what follows it is not read
                _check_scans(data, place)
            kept.append(memoryview(data)[place - 2 :])
            return Essence("JPEG", b"".join(kept), size, orientation)
        if marker in _OTHER_FRAMES:
            raise UnsupportedImage(
                "The JPEG is coded in a way that is not read here. Save it as a baseline or progressive JPEG."
            )
        if marker in _FRAMES:
            if size is not None or len(body) < 6:
                raise corrupt()
            size = int.from_bytes(body[3:5]), int.from_bytes(body[1:3])
            components, progressive = body[5], marker in _PROGRESSIVE
        elif marker == _APP1 and body.startswith(b"Exif\x00\x00") and orientation == 1:
            orientation = orientation_of(body)
        wanted = marker in _FRAMES or marker in _TABLES
        if wanted or (marker, body[:4]) == (_APP0, b"JFIF") or (marker, body[:5]) == (_APP14, b"Adobe"):
            kept.append(data[place - 2 : end])
    raise in_too_many_parts("segments")


def _segment(data: bytes, place: int) -> tuple[int, int, int]:
    """The next marker, where its segment begins after it, and where that ends."""
    found = _MARKER.search(data, place)
    if found is None:
        raise corrupt()
    marker, place = found[1][0], found.end()
    if marker in _ALONE:
        return marker, place, place
    length = int.from_bytes(data[place : place + 2])
    if marker in (_SOI, _EOI) or length < 2 or place + length > len(data):
        raise corrupt()
    return marker, place, place + length


_SEGMENT_AFTER_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def _check_scans(data: bytes, place: int) -> None:
    """`place` is behind the first scan's marker. Raises InvalidImage."""
    # The bytes of the marker may also be in what follows the picture, so that only many of them are looked at.
    if data.count(b"\xff\xda", place) < MAX_SCANS:
        return
    scans = 1
    for _ in range(_MAX_SEGMENTS):
        found = _SEGMENT_AFTER_SCAN.search(data, place)
        if found is None or found[1][0] == _EOI:
            return
        scans += found[1][0] == _SOS
        if scans > MAX_SCANS:
            break
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    raise InvalidImage(
        f"The JPEG is coded in more than {MAX_SCANS} scans. Save it anew as a baseline or progressive JPEG."
    )
