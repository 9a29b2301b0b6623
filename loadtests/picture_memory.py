"""What a picture takes in memory at its peak, for each of its pixels: `python -m loadtests.picture_memory`.

Each is measured in a process of its own, with the allocator's settings of the gateway, and without the uploaded file,
which is as long as it is.
"""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gateway.images.decode import decode
from gateway.images.draw import drawn, side_by_side
from gateway.images.preprocess import preprocess
from gateway.tasks.detect import Box
from gateway.tasks.mask import Mask
from gateway.tasks.segment import EncodedMask, Segmentation
from modelkit.spec import InputSpec

SIDE = 4000
_STRETCH = InputSpec(height=224, width=224)
_BILINEAR = InputSpec(height=224, width=224, antialias=False)
_MASKS = 20


def _file(form: str, mode: str, **options: object) -> bytes:
    grey = Image.linear_gradient("L").resize((SIDE, SIDE))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = Image.merge(mode, [grey] * len(mode)) if mode in ("LA", "RGBA") else grey.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _file("JPEG", "RGB", exif=exif)


def _only_decoded(data: bytes) -> None:
    decode(data, max_pixels=SIDE**2)


def _fitted(spec: InputSpec) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        preprocess(decode(data, max_pixels=SIDE**2), spec)

    return run


def _found() -> list[Segmentation]:
    mask = Mask.of(np.ones((SIDE, SIDE), dtype=np.bool_), 0, 0, (SIDE, SIDE))
    encoded = EncodedMask((SIDE, SIDE), mask.counts())
    return [Segmentation(0, "all of it", 0.9, Box(0, 0, SIDE, SIDE), encoded)] * _MASKS


def _drawn(data: bytes) -> None:
    drawn(decode(data, max_pixels=SIDE**2), "segment", _found()).save(io.BytesIO(), "PNG", compress_level=1)


def _compared(data: bytes) -> None:
    picture = decode(data, max_pixels=SIDE**2)
    panels = [(name, drawn(picture, "segment", _found())) for name in ("torch", "tf")]
    side_by_side(panels).save(io.BytesIO(), "PNG", compress_level=1)


CASES: dict[str, tuple[Callable[[], bytes], Callable[[bytes], None]]] = {
    "JPEG": (lambda: _file("JPEG", "RGB"), _fitted(_STRETCH)),
    "JPEG, progressive": (lambda: _file("JPEG", "RGB", progressive=True), _fitted(_STRETCH)),
    "JPEG, CMYK": (lambda: _file("JPEG", "CMYK"), _fitted(_STRETCH)),
    "JPEG, turned upright": (_turned, _fitted(_STRETCH)),
    "JPEG, fitted without antialiasing": (lambda: _file("JPEG", "RGB"), _fitted(_BILINEAR)),
    "PNG": (lambda: _file("PNG", "RGB"), _fitted(_STRETCH)),
    "PNG, transparent": (lambda: _file("PNG", "RGBA"), _fitted(_STRETCH)),
    "PNG, grey and transparent": (lambda: _file("PNG", "LA"), _fitted(_STRETCH)),
    "PNG, 16 bits": (lambda: _file("PNG", "I;16"), _fitted(_STRETCH)),
    "WebP": (lambda: _file("WEBP", "RGB", method=0), _fitted(_STRETCH)),
    "WebP, transparent": (lambda: _file("WEBP", "RGBA", method=0), _fitted(_STRETCH)),
    "GIF": (lambda: _file("GIF", "P"), _fitted(_STRETCH)),
    "BMP": (lambda: _file("BMP", "RGB"), _fitted(_STRETCH)),
    "TIFF": (lambda: _file("TIFF", "RGB", compression="tiff_lzw"), _fitted(_STRETCH)),
    "TIFF, transparent": (lambda: _file("TIFF", "RGBA", compression="tiff_lzw"), _fitted(_STRETCH)),
    f"JPEG, drawn with {_MASKS} masks, sent as PNG": (lambda: _file("JPEG", "RGB"), _drawn),
    f"JPEG, compared, drawn with {_MASKS} masks twice": (lambda: _file("JPEG", "RGB"), _compared),
}


def _status(key: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def _measure(name: str) -> float:
    make, run = CASES[name]
    data = make()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run(data)
    return (_status("VmHWM") - before) / SIDE**2


def main() -> None:
    if len(sys.argv) > 1:
        print(f"{_measure(sys.argv[1]):5.1f} bytes a pixel  {sys.argv[1]}")  # noqa: T201
        return
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 20)}
    for name in CASES:
        subprocess.run([sys.executable, "-m", "loadtests.picture_memory", name], env=environment, check=True)


if __name__ == "__main__":
    main()
