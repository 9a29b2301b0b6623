"""Real pictures of each format that is read, in each way that Pillow can write it, with a secret beside the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.support.pictures import corners, encode

SECRET = b"a secret that no picture needs"


def pictures() -> dict[str, bytes]:
    """By what they are; a name begins with Pillow's word for the format."""
    return dict([*_jpeg(), *_png(), *_webp(), *_gif_and_bmp(), *_tiff()])


def _drawn(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (37, 53, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA").resize((106, 74), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    return exif


_PROFILE = {"icc_profile": SECRET * 20}


def _jpeg() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "RGB", "CMYK"):
        for options in ({}, {"progressive": True}, {"subsampling": 0, "optimize": True}, {"restart_marker_blocks": 2}):
            beside: dict[str, Any] = {"comment": SECRET, "exif": _exif(), "dpi": (72, 72), **_PROFILE}
            yield f"JPEG {mode} {options}", encode(_drawn(mode), "JPEG", **options, **beside)


def _png() -> Iterator[tuple[str, bytes]]:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", SECRET.decode(), zip=False)
    info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        clear = {"transparency": 3} if mode in ("L", "P") else {}
        yield f"PNG {mode}", encode(_drawn(mode), "PNG", pnginfo=info, exif=_exif(), **clear)
    frames: dict[str, Any] = {"save_all": True, "append_images": [corners(106, 74)]}
    yield "PNG of several frames", encode(_drawn("RGB"), "PNG", pnginfo=info, **frames)


def _webp() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "RGBA"):
        for options in ({"quality": 60}, {"lossless": True}):
            yield (
                f"WEBP {mode} {options}",
                encode(_drawn(mode), "WEBP", exif=_exif(), xmp=SECRET, **options, **_PROFILE),
            )
            frames: dict[str, Any] = {"save_all": True, "append_images": [corners(106, 74)]}
            yield (
                f"WEBP of several frames {mode} {options}",
                encode(_drawn(mode), "WEBP", exif=_exif(), **frames, **options),
            )


def _gif_and_bmp() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"GIF {mode}", encode(_drawn(mode), "GIF", comment=SECRET)
        yield f"BMP {mode}", encode(_drawn(mode), "BMP")
    for disposal in range(4):
        frames: dict[str, Any] = {"save_all": True, "append_images": [_drawn("P"), _drawn("RGBA")]}
        how: dict[str, Any] = {"disposal": disposal, "transparency": 1, "interlace": disposal % 2}
        yield f"GIF of several frames, {disposal}", encode(_drawn("RGBA"), "GIF", comment=SECRET, **how, **frames)


def _tiff() -> Iterator[tuple[str, bytes]]:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = SECRET.decode()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
            yield f"TIFF {mode} {compression}", encode(_drawn(mode), "TIFF", compression=compression, tiffinfo=tags)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"TIFF {compression}", encode(_drawn("1"), "TIFF", compression=compression)
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        yield f"TIFF JPEG {mode}", encode(_drawn(mode), "TIFF", compression="jpeg")
    yield "TIFF YCbCr", encode(_drawn("YCbCr"), "TIFF", compression="tiff_lzw")
    yield "TIFF strips", encode(_drawn("RGB"), "TIFF", strip_size=1000)
    yield "TIFF predictor", encode(_drawn("RGB"), "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    pages: dict[str, Any] = {"save_all": True, "append_images": [corners()]}
    yield "TIFF of several pages", encode(_drawn("RGB"), "TIFF", tiffinfo=tags, **pages)
    yield "TIFF big", encode(_drawn("RGB"), "TIFF", big_tiff=True, tiffinfo=tags)
    yield "TIFF big LZW", encode(_drawn("RGB"), "TIFF", big_tiff=True, compression="tiff_lzw")
