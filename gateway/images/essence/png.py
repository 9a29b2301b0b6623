"""PNG (ISO/IEC 15948): chunks. Of an animated one, the picture that a program shows which knows no animation."""

from __future__ import annotations

from gateway.images.essence.base import Essence, corrupt, in_too_many_parts
from gateway.images.essence.exif import orientation_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 20_000
"""Encoders put 8 kB or more of the pixels into a chunk."""
_MAX_TABLE = 768
"""Bytes of a palette of 256 colours."""
_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"


def essence(data: bytes) -> Essence:
    """Header, palette, transparency and pixels. Raises InvalidImage."""
    view = memoryview(data)
    if data[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise corrupt()
    kept: list[bytes | memoryview] = [data[:33]]
    size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    seen, orientation, place = set(), 1, 33
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        end = place + 12 + length
        if len(kind) < 4 or kind == b"IEND":
            break
        if kind == b"IDAT":
            kept.append(view[place:end])  # cut off at the end of the file: the decoder tells whether it is enough
        elif kind in (b"PLTE", b"tRNS") and kind not in seen and b"IDAT" not in seen:
            if length > _MAX_TABLE:
                raise corrupt()
            kept.append(view[place:end])
        elif kind == b"eXIf" and kind not in seen:
            orientation = orientation_of(data[place + 8 : end - 4])
        seen.add(kind)
        place = end
    else:
        raise in_too_many_parts("chunks")
    if b"IDAT" not in seen:
        raise corrupt()
    return Essence("PNG", b"".join((*kept, _END)), size, orientation)
