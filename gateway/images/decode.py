"""Bytes of a picture → an upright RGB picture of 8 bits a channel."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gateway.errors import ImageTooLarge, InvalidImage, UnsupportedImage
from gateway.images.essence import bmp, gif, jpeg, png, tiff, webp
from gateway.images.essence.base import Essence, corrupt

# The pixel limit is checked here, before Pillow sees the file, for every format alike; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None

_FORMAT_NAMES = "JPEG, PNG, WebP, BMP, GIF or TIFF"
_ORIENTATION = "orientation"
"""Where an opened picture's `info` has it: no file's own entries get there."""

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

    Raises UnsupportedImage, InvalidImage, and ImageTooLarge before allocating width × height × 3 bytes; MemoryError.
    """
    return pixels_of(open_picture(data, max_pixels=max_pixels))


def open_picture(data: bytes, *, max_pixels: int) -> Image.Image:
    """Read the header alone: the size is known, no pixel is decoded. Raises as `decode`."""
    essence = _essence(data)
    width, height = essence.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The picture has {width} × {height} = {width * height:,} pixels, over the limit of {max_pixels:,}. "
            "Send a smaller one."
        )
    if width == 0 or height == 0:
        raise InvalidImage("The picture has no pixels.")
    try:
        image = Image.open(io.BytesIO(essence.data), formats=(essence.form,))
    except MemoryError:  # not the picture's fault
        raise
    except Exception as error:  # Pillow raises whatever its plug-ins do on a corrupt header
        raise corrupt() from error
    if image.size != essence.size:  # what was checked is what is decoded
        raise corrupt()
    image.info[_ORIENTATION] = essence.orientation
    return image


def pixels_of(image: Image.Image) -> Image.Image:
    """What `decode` makes of a picture that `open_picture` has opened. Raises UnsupportedImage, InvalidImage,
    MemoryError."""
    upright = _UPRIGHT.get(image.info[_ORIENTATION])
    try:
        image.load()
        rgb = _to_rgb(image)
    except (UnsupportedImage, MemoryError):
        raise
    except Exception as error:  # as above
        raise corrupt() from error
    return rgb if upright is None else rgb.transpose(upright)


def media_type(data: bytes) -> str:
    """Of a picture that `decode` reads, e.g. `image/png`."""
    return f"image/{_essence(data).form.lower()}"


def _essence(data: bytes) -> Essence:
    """Raises UnsupportedImage, InvalidImage."""
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.essence(data)
    if data.startswith(png.SIGNATURE):
        return png.essence(data)
    if webp.is_webp(data):
        return webp.essence(data)
    if data.startswith(gif.SIGNATURES):
        return gif.essence(data)
    if data.startswith(tiff.SIGNATURES):
        return tiff.essence(data)
    if data.startswith(bmp.SIGNATURE):
        return bmp.essence(data)
    raise UnsupportedImage(f"The upload is not a picture we read. Send {_FORMAT_NAMES}.")


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
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(clear, mask=clear)  # the values of alpha_composite, in half of its memory
        return white
    return image.convert("RGB")
