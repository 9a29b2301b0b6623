"""Bytes of a picture → an upright RGB picture of 8 bits a channel."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from gateway.errors import ImageTooLarge, InvalidImage, UnsupportedImage

# The pixel limit is checked here, before decoding, for every format alike; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_FORMAT_NAMES = "JPEG, PNG, WebP, BMP, GIF or TIFF"
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8", b"II*\x00", b"MM\x00*")

_EXIF_ORIENTATION = 0x0112
# EXIF 2.3, 4.6.4 A: where the first row and column of the stored picture lie, and what puts it upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode the first frame to mode RGB, upright by its EXIF orientation.

    Transparent parts show white, as on a page. 16-bit channels keep their high byte.

    Raises UnsupportedImage, InvalidImage, and ImageTooLarge before allocating width × height × 3 bytes.
    """
    return pixels_of(open_picture(data, max_pixels=max_pixels))


def open_picture(data: bytes, *, max_pixels: int) -> Image.Image:
    """Read the header alone: the size is known, no pixel is decoded. Raises as `decode`."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
            raise _corrupt() from None
        raise UnsupportedImage(f"The upload is not a picture we read. Send {_FORMAT_NAMES}.") from None
    except Exception as error:  # Pillow raises whatever its plug-ins do on a corrupt header
        raise _corrupt() from error

    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The picture has {width} × {height} = {width * height:,} pixels, over the limit of {max_pixels:,}. "
            "Send a smaller one."
        )
    if width == 0 or height == 0:
        raise InvalidImage("The picture has no pixels.")
    return image


def pixels_of(image: Image.Image) -> Image.Image:
    """What `decode` makes of a picture that `open_picture` has opened. Raises UnsupportedImage, InvalidImage."""
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image) or 1)
        rgb = _to_rgb(image)
    except UnsupportedImage:
        raise
    except Exception as error:  # as above
        raise _corrupt() from error
    return rgb if upright is None else rgb.transpose(upright)


def media_type(data: bytes) -> str:
    """Of a picture that `decode` reads, e.g. `image/png`."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return Image.MIME[str(image.format)]


def _corrupt() -> InvalidImage:
    return InvalidImage("The picture is truncated or corrupt: it could not be decoded. Send the whole file.")


def _orientation(image: Image.Image) -> int | None:
    try:
        orientation: int | None = image.getexif().get(_EXIF_ORIENTATION)
        return orientation
    except Exception:  # as above. A damaged EXIF block says nothing of the pixels: take them as they are stored
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise UnsupportedImage(
            f"The picture's pixels are of a kind ({image.mode}) with no one meaning as RGB. "
            "Convert it to 8 or 16 bits a channel, grey or RGB."
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
