"""Pictures made to hurt: each is small enough to be uploaded, and asks a reader for far more than it has bytes.

`BOMBS` makes them one at a time, since some are as large as an upload may be.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from tests.support.pictures import corners, encode

Bomb = Callable[[], bytes]
UPLOAD = 19_900_000
"""Bytes of the largest ones: just below the default limit."""
SIDE = 7000
"""Of a square picture just below the default limit of pixels."""


def _filled(part: bytes, room: int = UPLOAD) -> bytes:
    """As many times as there is room."""
    return part * (room // len(part))


# PNG


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int = 8,
    height: int = 8,
    *,
    before: bytes = b"",
    pixels: bytes | None = None,
    after: bytes = b"",
    mode: int = 0,
) -> bytes:
    """Of 1 byte a pixel in mode 0."""
    if pixels is None:
        pixels = chunk(b"IDAT", zlib.compress(bytes(height * (width + 1))))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + chunk(b"IEND")


def _megabyte(start: bytes = b"") -> bytes:
    return zlib.compress(start + bytes(1_000_000), 9)


def _deflated(length: int) -> bytes:
    """So many zeros: a thousandth of it."""
    deflate = zlib.compressobj(9)
    return b"".join([deflate.compress(bytes(1_000_000)) for _ in range(length // 1_000_000)]) + deflate.flush()


def _apng() -> bytes:
    control = partial(struct.pack, ">IIIIIHHBB")
    frames, data = [chunk(b"acTL", struct.pack(">II", 10_000, 0))], zlib.compress(bytes(72))
    for number in range(10_000):
        frames.append(chunk(b"fcTL", control(2 * number, 8, 8, 0, 0, 1, 1, 2, 1)))
        frames.append(chunk(b"fdAT", struct.pack(">I", 2 * number + 1) + data))
    return png(before=b"".join(frames))


def exif_bomb(size: int) -> bytes:
    """A directory whose every entry claims all of the block, with a chain of directories that ends at its beginning."""
    entries = min(60_000, size // 24)
    start = struct.pack("<2sHIH", b"II", 42, 8, entries)
    tags = b"".join([struct.pack("<HHII", 1 + number, 5, size // 8, 0) for number in range(entries)])
    return (start + tags + struct.pack("<I", 8)).ljust(size, b"\x01")


PNG: dict[str, Bomb] = {
    "50,000 × 50,000 in a few kB": lambda: png(50_000, 50_000, pixels=chunk(b"IDAT", _megabyte())),
    "sides of 2^31": lambda: png(2**31 - 1, 2**31 - 1, pixels=chunk(b"IDAT", _megabyte())),
    "as large as allowed, almost no bytes": lambda: png(SIDE, SIDE),
    "as large as allowed, no pixels": lambda: png(SIDE, SIDE, pixels=chunk(b"IDAT"), mode=6),
    "a gigabyte for 64 pixels": lambda: png(pixels=chunk(b"IDAT", _deflated(1_000_000_000))),
    "zTXt of a gigabyte": lambda: png(before=chunk(b"zTXt", b"k\0\0" + _deflated(1_000_000_000))),
    "zTXt without keywords, a megabyte each": lambda: png(before=_filled(chunk(b"zTXt", b"\0\0" + _megabyte()))),
    "iTXt that is no text, a megabyte each": lambda: png(
        before=_filled(chunk(b"iTXt", b"k\0\1\0\0\0" + _megabyte(b"\xff")))
    ),
    "iTXt behind the pixels": lambda: png(after=_filled(chunk(b"iTXt", b"k\0\1\0\0\0" + _megabyte(b"\xff")))),
    "iCCP, a megabyte each": lambda: png(before=_filled(chunk(b"iCCP", b"p\0\0" + _megabyte()))),
    "millions of texts": lambda: png(before=_filled(chunk(b"tEXt", b"k\0"))),
    "a million chunks that nobody knows": lambda: png(before=_filled(chunk(b"prVt"))),
    "a million chunks behind the pixels": lambda: png(after=_filled(chunk(b"prVt"))),
    "a million empty IDAT": lambda: png(pixels=_filled(chunk(b"IDAT")) + chunk(b"IDAT", zlib.compress(bytes(72)))),
    "palette of megabytes": lambda: png(before=chunk(b"PLTE", bytes(UPLOAD // 3 * 3)), mode=3),
    "transparency of megabytes": lambda: png(before=chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(UPLOAD)), mode=3),
    "EXIF of megabytes": lambda: png(before=chunk(b"eXIf", exif_bomb(UPLOAD))),
    "APNG of 10,000 frames": _apng,
    "chunk of 4 GB": lambda: png(before=struct.pack(">I", 2**32 - 1) + b"tEXt"),
    "no header": lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IEND"),
    "no size": lambda: png(0, 0),
}

# JPEG


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(
    width: int = 16, height: int = 16, *, before: bytes = b"", progressive: bool = False, scans: bytes | None = None
) -> bytes:
    """A real one of 16 × 16, with another size written into its frame."""
    real = encode(corners(16, 16), "JPEG", progressive=progressive)
    frame = real.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    start = real.index(b"\xff\xda")
    head = real[2 : frame + 5] + struct.pack(">HH", height, width) + real[frame + 9 : start]
    return b"\xff\xd8" + before + head + (real[start:] if scans is None else scans)


_DC = segment(0xDA, bytes((3, 1, 0, 2, 0x11, 3, 0x11, 0, 0, 1)))
_ONE_OF_THREE = segment(0xDA, bytes((1, 1, 0, 0, 63, 0)))
_TABLE = segment(0xC4, bytes((0x10, 1, *[0] * 15, 0xE0)))
"""A Huffman table of one code: nothing more in 2^14 blocks."""
_AC = segment(0xDA, bytes((1, 1, 0, 1, 63, 2)))
_REFINED = segment(0xDA, bytes((1, 1, 0, 1, 63, 0x21)))
_EMPTY_BLOCKS = bytes(SIDE * SIDE // 64 // 2**14 * 2)
"""Of one scan of the largest picture."""


def _app(marker: int, start: bytes, size: int) -> bytes:
    return segment(marker, start.ljust(size, b"\x01"))


JPEG: dict[str, Bomb] = {
    "65,500 × 65,500": lambda: jpeg(65_500, 65_500),
    "height in DNL": lambda: jpeg(65_500, 0) + segment(0xDC, b"\xff\xff"),
    "two frames": lambda: jpeg(before=segment(0xC0, struct.pack(">BHHB", 8, 65_500, 65_500, 1) + b"\1\x11\0")),
    "as large as allowed, almost no bytes": lambda: jpeg(SIDE, SIDE),
    "a million scans": lambda: jpeg(SIDE, SIDE, progressive=True, scans=_DC + _TABLE + _filled(_AC)),
    "a million scans of a small one": lambda: jpeg(progressive=True, scans=_DC + _TABLE + _filled(_AC)),
    "a million scans, one after the other refined": lambda: jpeg(
        64, 64, progressive=True, scans=_DC + _TABLE + _AC + _filled(_REFINED)
    ),
    "as many scans as allowed": lambda: jpeg(
        SIDE, SIDE, progressive=True, scans=_DC + _TABLE + 99 * (_AC + _EMPTY_BLOCKS) + b"\xff\xd9"
    ),
    "a million scans, not progressive": lambda: jpeg(SIDE, SIDE, scans=_filled(_ONE_OF_THREE)),
    "millions of tables between scans": lambda: jpeg(
        progressive=True, scans=_DC + _TABLE + _filled(segment(0xDD, b"\0\0"), UPLOAD - 10_000) + 200 * _AC
    ),
    "millions of empty segments": lambda: jpeg(before=_filled(segment(0xE5))),
    "millions of comments": lambda: jpeg(before=_filled(segment(0xFE, b"x"))),
    "millions of pieces of EXIF": lambda: jpeg(before=_filled(segment(0xE1, b"Exif\0\0x"))),
    "hundreds of pieces of EXIF": lambda: jpeg(before=_filled(_app(0xE1, b"Exif\0\0", 65_533))),
    "padding of megabytes": lambda: jpeg(before=bytes([0xFF]) * UPLOAD),
    "stuffing of megabytes": lambda: jpeg(before=_filled(b"\xff\x00")),
    "restarts of megabytes": lambda: jpeg(before=_filled(b"\xff\xd0")),
    "EXIF whose entries are all of it": lambda: jpeg(before=segment(0xE1, b"Exif\0\0" + exif_bomb(65_000))),
    "a colour profile in 65,000 pieces": lambda: jpeg(
        before=_filled(segment(0xE2, b"ICC_PROFILE\0\1\xff" + b"x" * 290))
    ),
    "Photoshop's blocks": lambda: jpeg(
        before=_filled(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5000))
    ),
    "a multi-picture file of 65,535 pictures": lambda: jpeg(
        before=segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0xB001, 4, 1, 65_535) + bytes(4))
    ),
    "sampling of 15 × 15": lambda: jpeg().replace(b"\x01\x22\x00", b"\x01\xff\x00", 1),
    "255 components": lambda: jpeg(before=segment(0xC0, struct.pack(">BHHB", 8, 16, 16, 255) + b"\1\x11\0" * 255)),
    "no frame": lambda: b"\xff\xd8" + _DC,
}

# GIF


def gif(width: int = 8, height: int = 8, *, before: bytes = b"", frame: tuple[int, int] = (8, 8), data: bytes) -> bytes:
    header = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0) + bytes((0, 0, 0, 255, 0, 0))
    return header + before + struct.pack("<BHHHHB", 0x2C, 0, 0, *frame, 0) + b"\x02" + data + b";"


def _lzw(pixels: int) -> bytes:
    """All of colour 0, a code each: after every one the table begins anew, so that codes stay at 3 bits."""
    bits = sum((4 | 0 << 3) << 6 * number for number in range(pixels)) | 5 << 6 * pixels
    data = bits.to_bytes(6 * pixels // 8 + 1, "little")
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


_LZW = _lzw(64)
_DISPOSED = b"!\xf9\x04\x09\0\0\0\0"

GIF: dict[str, Bomb] = {
    "65,535 × 65,535": lambda: gif(65_535, 65_535, data=_LZW),
    "a frame of 65,535 × 65,535 on a small screen": lambda: gif(frame=(65_535, 65_535), data=_LZW),
    "the same, taken away again": lambda: gif(before=_DISPOSED, frame=(65_535, 65_535), data=_LZW),
    "10,000 frames": lambda: gif(data=_LZW + (struct.pack("<BHHHHB", 0x2C, 0, 0, 8, 8, 0) + b"\x02" + _LZW) * 10_000),
    "10,000 frames of 65,535 × 65,535": lambda: gif(
        data=_LZW + (_DISPOSED + struct.pack("<BHHHHB", 0x2C, 0, 0, 65_535, 65_535, 0) + b"\x02" + _LZW) * 10_000
    ),
    "as large as allowed, almost no bytes": lambda: gif(SIDE, SIDE, before=_DISPOSED, frame=(SIDE, SIDE), data=_LZW),
    "millions of comments": lambda: gif(before=_filled(b"!\xfe\x01x\0"), data=_LZW),
    "a comment in millions of pieces": lambda: gif(before=b"!\xfe" + _filled(b"\x01x") + b"\0", data=_LZW),
    "a frame in millions of pieces": lambda: gif(SIDE, SIDE, frame=(SIDE, SIDE), data=_filled(b"\x01\x44") + b"\0"),
    "megabytes of nothing before the frame": lambda: gif(before=bytes(UPLOAD), data=_LZW),
    "no frame": lambda: gif(data=b"")[:19] + b";",
}

# WebP


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def canvas(width: int, height: int, flags: int) -> tuple[bytes, bytes]:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", struct.pack("<I", flags) + size


def bitstream() -> tuple[bytes, bytes]:
    real = encode(corners(16, 16), "WEBP")
    return real[12:16], real[20 : 20 + int.from_bytes(real[16:20], "little")]


def _frame() -> tuple[bytes, bytes]:
    kind, data = bitstream()
    size = (15).to_bytes(3, "little") * 2
    return b"ANMF", bytes(6) + size + bytes(4) + kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


_ANIMATION = b"ANIM", bytes(6)

WEBP: dict[str, Bomb] = {
    "a canvas of 16,777,216 × 16,777,216": lambda: riff(canvas(2**24, 2**24, 0), bitstream()),
    "a canvas of 16,384 × 16,384": lambda: riff(canvas(2**14, 2**14, 2), _ANIMATION, _frame()),
    "as large as allowed, one small frame": lambda: riff(canvas(SIDE, SIDE, 2), _ANIMATION, _frame()),
    "as large as allowed, one colour": lambda: encode(Image.new("RGB", (SIDE, SIDE)), "WEBP", lossless=True, method=0),
    "10,000 frames": lambda: riff(canvas(16, 16, 2), _ANIMATION, *[_frame()] * 10_000),
    "a million chunks": lambda: riff(canvas(16, 16, 0), bitstream(), *[(b"none", b"")] * 2_000_000),
    "EXIF of megabytes": lambda: riff(canvas(16, 16, 8), bitstream(), (b"EXIF", exif_bomb(UPLOAD - 10_000))),
    "another size in the bitstream": lambda: riff(canvas(17, 16, 0), bitstream()),
    "a chunk of 4 GB": lambda: riff(canvas(16, 16, 0), (b"VP8 ", b""))[:-4] + b"\xff" * 4,
    "no bitstream": lambda: riff(canvas(16, 16, 0)),
}

# TIFF


def tiff(
    tags: dict[int, tuple[int, int, int]] | None = None,
    *,
    data: bytes = bytes(64),
    next_directory: int = 0,
    more: bytes = b"",
) -> bytes:
    """Grey, 8 × 8: its pixels from 8 on, its directory behind `data`. `tags` are types, counts and values."""
    every = {256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8)}
    every |= {277: (3, 1, 1), 278: (3, 1, 8), 279: (4, 1, 64)} | (tags or {})
    directory = b"".join([struct.pack("<HHII", tag, *entry) for tag, entry in sorted(every.items())])
    whole = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(every)) + directory
    return whole + struct.pack("<I", next_directory) + more


def _tiled(tile: tuple[int, int], **more: tuple[int, int, int]) -> bytes:
    sides = {322: (4, 1, tile[0]), 323: (4, 1, tile[1]), 324: (4, 1, 8), 325: (4, 1, 64), 259: (3, 1, 5)}
    return tiff(sides)


def _jpeg_in_tiff() -> bytes:
    scans = jpeg(SIDE, SIDE, progressive=True, scans=_DC + _TABLE + _filled(_AC, 1_000_000) + b"\xff\xd9")
    return tiff(_large(7, {262: (3, 1, 6), 277: (3, 1, 3), 279: (4, 1, len(scans))}), data=scans)


def _large(compression: int, more: dict[int, tuple[int, int, int]]) -> dict[int, tuple[int, int, int]]:
    sides = {256: (4, 1, SIDE), 257: (4, 1, SIDE), 278: (4, 1, SIDE)}
    return sides | {259: (3, 1, compression)} | more


TIFF: dict[str, Bomb] = {
    "100,000 × 100,000": lambda: tiff({256: (4, 1, 100_000), 257: (4, 1, 100_000)}),
    "sides of 2^32": lambda: tiff({256: (4, 1, 2**32 - 1), 257: (4, 1, 2**32 - 1)}),
    "a directory that follows itself": lambda: tiff(next_directory=72),
    "a directory in the header": lambda: struct.pack("<2sHI", b"II", 42, 4) + bytes(500),
    "tags that are each all of the file": lambda: tiff(
        dict.fromkeys(range(30000, 33000), (5, UPLOAD // 16, 8)), data=bytes(UPLOAD // 2)
    ),
    "a resolution of a million fractions": lambda: tiff({282: (5, UPLOAD // 10, 8)}, data=bytes(UPLOAD)),
    "65,535 tags": lambda: (
        struct.pack("<2sHIH", b"II", 42, 8, 65_535) + _filled(struct.pack("<HHII", 1, 4, 1, 1), 786_420)
    ),
    "bits of a million samples": lambda: tiff({258: (3, 1_000_000, 8)}, data=bytes(UPLOAD)),
    "65,535 samples": lambda: tiff({277: (3, 1, 65_535)}),
    "millions of strips": lambda: tiff(
        {273: (4, 2_000_000, 8), 279: (4, 2_000_000, 8), 278: (3, 1, 1)}, data=bytes(UPLOAD)
    ),
    "as many strips as allowed": lambda: tiff(
        _large(1, {273: (4, 20_000, 8), 279: (4, 20_000, 8), 278: (3, 1, 1)}), data=bytes(UPLOAD)
    ),
    "a tile of 2^31 × 2^31": lambda: _tiled((2**31 - 16, 2**31 - 16)),
    "a tile of 65,536 × 65,536": lambda: _tiled((65_536, 65_536)),
    "a row in tiles of megabytes": lambda: tiff(
        {
            256: (4, 1, 1_000_000),
            257: (4, 1, 1),
            322: (4, 1, 16),
            323: (4, 1, 48_000_000),
            324: (4, 1, 8),
            325: (4, 1, 64),
        }
    ),
    "strips far beyond the file": lambda: tiff({273: (4, 1, 2**32 - 1), 279: (4, 1, 2**32 - 1)}),
    "a gigabyte of deflate": lambda: tiff(_large(8, {279: (4, 1, 90_000)}), data=_deflated(100_000_000)),
    "LZMA with a dictionary of gigabytes": lambda: tiff(_large(34925, {}), data=b"\xfd7zXZ\0" + bytes(200)),
    "JPEG of a million scans": _jpeg_in_tiff,
    "EXIF that follows itself": lambda: tiff(
        {34665: (4, 1, 72), 34853: (4, 1, 72), 330: (4, 1, 72), 40965: (4, 1, 72)}
    ),
    "BigTIFF, offset of 2^63": lambda: struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63) + bytes(100),
    "BigTIFF, 2^63 tags": lambda: struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2**63) + bytes(100),
    "width as a fraction": lambda: tiff({256: (5, 1, 8)}),
}

# BMP


def bmp(
    width: int, height: int, *, bits: int = 8, compression: int = 0, colours: int = 0, data: bytes = b"", size: int = 40
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", 2**32 - 1, 0, 0, 54) + header + data


BMP: dict[str, Bomb] = {
    "2^31 × 2^31": lambda: bmp(2**31 - 1, 2**31 - 1),
    "sides below nothing": lambda: bmp(-(2**31), -(2**31)),
    "height below nothing": lambda: bmp(8, -8, bits=24, data=bytes(192)),
    "as large as allowed, no bytes": lambda: bmp(SIDE, SIDE, bits=24),
    "runs of megabytes": lambda: bmp(SIDE, SIDE, compression=1, data=bytes(1024) + _filled(b"\x01\x07")),
    "runs of four bits": lambda: bmp(SIDE, SIDE, bits=4, compression=2, data=bytes(64) + _filled(b"\x01\x77")),
    "runs that only go to the next row": lambda: bmp(SIDE, SIDE, compression=1, data=bytes(1024) + _filled(b"\0\0")),
    "65,536 colours": lambda: bmp(8, 8, colours=65_536, data=_filled(b"\x01")),
    "2^32 colours": lambda: bmp(8, 8, colours=2**32 - 1, data=bytes(1000)),
    "a header of 4 GB": lambda: bmp(8, 8, size=2**32 - 1, data=bytes(1000)),
    "bits that there are not": lambda: bmp(8, 8, bits=63, data=bytes(1000)),
    "a picture within the picture": lambda: bmp(8, 8, compression=4, data=jpeg(65_500, 65_500)),
}

# What is not read at all

OTHER: dict[str, Bomb] = {
    "ICO": lambda: b"\0\0\1\0\xff\xff" + bytes(16) * 65_535,
    "ICNS": lambda: b"icns" + struct.pack(">I", 1000) + (b"ic10" + struct.pack(">I", 8)) * 124,
    "JPEG 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 1000,
    "AVIF": lambda: b"\0\0\0\x20ftypavif" + b"\xff" * 1000,
    "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n{ } loop\n",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PSD": lambda: b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\x7f\xff\xff\xff" * 2,
    "XPM": lambda: b'/* XPM */\nstatic char *x[] = {"99999 99999 99999 9",',
    "PPM": lambda: b"P6 999999 999999 255\n",
    "FLI": lambda: b"\0\0\0\x04\x11\xaf\xff\xff\xff\xff\xff\xff" + bytes(200),
    "ZIP": lambda: b"PK\3\4" + bytes(100),
}

FORMATS: dict[str, dict[str, Bomb]] = {
    "PNG": PNG, "JPEG": JPEG, "GIF": GIF, "WEBP": WEBP, "TIFF": TIFF, "BMP": BMP, "other": OTHER
}  # fmt: skip


def truncated() -> Iterator[tuple[str, bytes]]:
    """A real picture of each format, cut off at places all over it."""
    for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        data = encode(corners(64, 48), form)
        for length in {*range(1, 64), *range(64, len(data), max(1, len(data) // 32))}:
            if length < len(data):
                yield f"{form} cut off at {length}", data[:length]
