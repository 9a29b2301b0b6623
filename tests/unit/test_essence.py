"""What reaches Pillow has the very pixels of the whole file, and nothing else of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gateway.errors import InvalidImage, TandemError, UnsupportedImage
from gateway.images.decode import decode, media_type, open_picture
from gateway.images.essence.exif import orientation_of
from tests.hostile.bombs import bmp, chunk, jpeg, png, segment, tiff
from tests.hostile.seeds import SECRET, pictures

ROOMY = 10_000_000

FILES = pictures()


def _as_pillow_has_it(data: bytes) -> Image.Image:
    """The whole file's first frame, on white."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        if image.has_transparency_data:
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        return image.convert("RGB")


@pytest.mark.parametrize("name", FILES)
def test_the_pixels_are_those_of_the_whole_file(name: str) -> None:
    pixels = np.asarray(decode(FILES[name], max_pixels=ROOMY))
    assert np.array_equal(pixels, np.asarray(_as_pillow_has_it(FILES[name])))


@pytest.mark.parametrize("name", FILES)
def test_nothing_beside_the_picture_reaches_pillow(name: str) -> None:
    image = open_picture(FILES[name], max_pixels=ROOMY)
    image.load()
    assert SECRET not in repr(image.info).encode()
    assert SECRET.decode() not in repr(getattr(image, "tag_v2", ""))
    assert getattr(image, "n_frames", 1) == 1 or image.format == "GIF"


@pytest.mark.parametrize("name", FILES)
def test_the_media_type_is_told_by_the_file(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as image:
        assert media_type(FILES[name]) == Image.MIME[str(image.format)]


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_orientation_is_read_from_exif_of_either_byte_order(order: str, prefix: bytes) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[0x010F] = "maker"
    exif[0x0112] = 6
    assert orientation_of(prefix + exif.tobytes().removeprefix(b"Exif\0\0")) == 6


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Exif\0\0", id="no header"),
        pytest.param(b"II*\0\xff\xff\xff\xff", id="a directory beyond the end"),
        pytest.param(b"II*\0\x08\0\0\0\xff\xff", id="more entries than bytes"),
        pytest.param(b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0", id="an orientation that there is not"),
        pytest.param(b"II*\0\x08\0\0\0\1\0\x12\1\2\0\1\0\0\0\x06\0\0\0", id="a letter"),
    ],
)
def test_exif_that_says_nothing_leaves_the_picture_as_it_is(exif: bytes) -> None:
    assert orientation_of(exif) == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bmp(8, 8, compression=1, data=bytes(1100)), id="BMP, run lengths"),
        pytest.param(tiff({259: (3, 1, 34925)}), id="TIFF, LZMA"),
        pytest.param(tiff({259: (3, 1, 6)}), id="TIFF, old JPEG"),
        pytest.param(jpeg().replace(b"\xff\xc0", b"\xff\xc3", 1), id="JPEG, lossless"),
    ],
)
def test_what_is_coded_in_a_way_that_is_not_read_says_what_to_save_it_as(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="Save it"):
        decode(data, max_pixels=ROOMY)


def test_a_directory_in_place_of_a_tiffs_header_cannot_bring_back_what_was_left_out() -> None:
    """Where the new directory were written over the header, the file would point at another one."""
    for place in range(8):
        data = bytearray(tiff())
        data[4:8] = place.to_bytes(4, "little")
        with pytest.raises(TandemError):
            decode(bytes(data), max_pixels=ROOMY)


def test_bytes_behind_a_jpeg_that_look_like_scans_are_no_scans() -> None:
    """A phone's film behind its photograph."""
    assert decode(jpeg() + b"\xff\xda" * 500, max_pixels=ROOMY).size == (16, 16)


def test_many_chunks_are_fewer_than_too_many() -> None:
    data = png(before=chunk(b"prVt") * 10_000)
    assert decode(data, max_pixels=ROOMY).size == (8, 8)
    with pytest.raises(InvalidImage, match="more chunks"):
        decode(png(before=chunk(b"prVt") * 20_000), max_pixels=ROOMY)


def test_many_segments_are_fewer_than_too_many() -> None:
    assert decode(jpeg(before=segment(0xE3) * 900), max_pixels=ROOMY).size == (16, 16)
    with pytest.raises(InvalidImage, match="more segments"):
        decode(jpeg(before=segment(0xE3) * 1000), max_pixels=ROOMY)
