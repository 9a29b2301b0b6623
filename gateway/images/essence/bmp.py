"""BMP: headers of OS/2 and Windows, then rows."""

from __future__ import annotations

from gateway.errors import UnsupportedImage
from gateway.images.essence.base import Essence, corrupt

SIGNATURE = b"BM"

_OS2_HEADER = 12
_RLE8, _RLE4 = 1, 2


def essence(data: bytes) -> Essence:
    """The whole file: nothing else is in it. Raises InvalidImage, UnsupportedImage."""
    if len(data) < 34:
        raise corrupt()
    if int.from_bytes(data[14:18], "little") == _OS2_HEADER:
        return Essence("BMP", data, (int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")))
    if int.from_bytes(data[30:34], "little") in (_RLE8, _RLE4):
        # Pillow decodes it in Python: 20 MB of runs take minutes, in which no other request is answered.
        raise UnsupportedImage("The BMP is compressed by run lengths, which is not read here. Save it as PNG.")
    width, height = int.from_bytes(data[18:22], "little"), int.from_bytes(data[22:26], "little")
    if data[25] == 0xFF:  # negative: the first row is the upper one; as Pillow has it
        height = 2**32 - height
    return Essence("BMP", data, (width, height))
