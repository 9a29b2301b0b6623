"""Pictures of every kind come out as upright RGB, whatever their file says."""

from __future__ import annotations

import io
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from gateway.errors import ImageTooLarge, InvalidImage, UnsupportedImage
from gateway.images.decode import decode
from tests.support.pictures import corners, encode

ROOMY = 10_000_000


def pixels(data: bytes) -> NDArray[np.uint8]:
    image = decode(data, max_pixels=ROOMY)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_very_pixels(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(pixels(encode(corners(), form, **options)), np.asarray(corners()))


def test_jpeg_gives_what_the_reference_decoder_gives() -> None:
    data = encode(corners(), "JPEG", quality=90)
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_an_animated_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(data) == (255, 0, 0)).all()


# Where the first row and column of the stored picture are, by EXIF 2.3; what turns an upright one into the stored one.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_undone(form: str, orientation: int) -> None:
    upright = np.asarray(corners())
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(pixels(encode(stored, form, exif=exif.tobytes(), **options)), upright)


def test_exif_orientation_of_a_jpeg_is_undone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(corners(40, 24).rotate(90, expand=True), "JPEG", quality=95, exif=exif.tobytes())
    assert np.abs(pixels(data).astype(int)[::8, ::8] - np.asarray(corners(40, 24)).astype(int)[::8, ::8]).max() < 8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of it
def test_a_damaged_exif_block_leaves_the_picture_as_it_is_stored() -> None:
    data = encode(corners(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(pixels(data), np.asarray(corners()))


def test_grey_pictures_have_three_equal_channels() -> None:
    grey = corners().convert("L")
    assert np.array_equal(pixels(encode(grey)), np.stack([np.asarray(grey)] * 3, axis=-1))


def test_palette_pictures_get_their_colours() -> None:
    assert np.array_equal(pixels(encode(corners().convert("P", palette=Image.Palette.ADAPTIVE))), np.asarray(corners()))


def test_black_and_white_pictures_are_black_and_white() -> None:
    assert set(np.unique(pixels(encode(corners().convert("1"))))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_show_white(mode: str) -> None:
    black = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    black.putpixel((1, 1), (0, 0, 0, 255))
    data = encode(black.convert(mode), "PNG")
    expected = np.full((4, 4, 3), 255)
    expected[1, 1] = 0
    assert np.array_equal(pixels(data), expected)


def test_half_transparent_parts_are_blended_with_white() -> None:
    assert np.abs(pixels(encode(Image.new("RGBA", (2, 2), (200, 0, 0, 128)))).astype(int) - (227, 127, 127)).max() <= 1


def test_every_value_with_every_transparency_is_blended_as_pillow_composites() -> None:
    value, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = Image.fromarray(np.stack([value, value[::-1], 255 - value, alpha], axis=-1), "RGBA")
    composite = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert np.array_equal(pixels(encode(image)), np.asarray(composite))


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_pictures_have_the_colours_of_the_print(form: str) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels(encode(cyan, form)).astype(int) - (0, 255, 255)).max() < 4


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(form: str) -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    assert np.array_equal(pixels(encode(Image.fromarray(values), form))[..., 0], values >> 8)


def test_sixteen_bit_big_endian_tiff_keeps_its_high_byte() -> None:
    entries = [(256, 3, 1, 2 << 16), (257, 3, 1, 1 << 16), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16)]
    entries += [(262, 3, 1, 1 << 16), (273, 4, 1, 8), (278, 3, 1, 1 << 16), (279, 4, 1, 4)]
    ifd = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4)
    data = b"MM\x00*" + struct.pack(">I", 12) + struct.pack(">HH", 0x1234, 0xFEDC) + ifd
    assert pixels(data)[0, :, 0].tolist() == [0x12, 0xFE]


def test_sixteen_bit_rgb_png_keeps_its_high_bytes() -> None:
    # Pillow cannot write one: a PNG by hand. 1 × 1, 16 bits, RGB.
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\x00" + struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)))
    assert pixels(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")).tolist() == [[[0x12, 0x56, 0x9A]]]


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_without_one_meaning_as_rgb_are_refused(mode: str) -> None:
    image = (
        ImageCms.profileToProfile(
            corners(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        if mode == "LAB"
        else corners().convert(mode)
    )
    assert image is not None
    with pytest.raises(UnsupportedImage, match="Convert it to 8 or 16 bits"):
        decode(encode(image, "TIFF"), max_pixels=ROOMY)


@pytest.mark.parametrize("data", [b"", b"x", b"%PDF-1.7", b"<svg/>", b"\x00" * 100])
def test_what_is_no_picture_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        decode(data, max_pixels=ROOMY)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of what it then refuses
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_cut_anywhere_is_invalid_never_a_fault(form: str) -> None:
    data = encode(corners(), form)
    for length in range(12, len(data) - 24, 7):
        with pytest.raises(InvalidImage):
            decode(data[:length], max_pixels=ROOMY)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_with_a_wrong_byte_is_decoded_or_refused_never_a_fault(form: str) -> None:
    data = encode(corners(), form)
    random = np.random.default_rng(0)
    for position, value in zip(random.integers(0, len(data), 300), random.integers(0, 256, 300), strict=True):
        damaged = data[:position] + bytes([value]) + data[position + 1 :]
        try:
            decode(damaged, max_pixels=ROOMY)
        except (InvalidImage, UnsupportedImage, ImageTooLarge):
            continue


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    header_only = encode(Image.new("RGB", (2000, 2000)))[:60]
    with pytest.raises(ImageTooLarge, match="2000 × 2000"):
        decode(header_only, max_pixels=2000 * 2000 - 1)


@pytest.mark.parametrize("where", ["open", "load", "convert"])
def test_a_picture_for_which_there_is_no_memory_is_not_called_corrupt(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    data = encode(corners().convert("L"))
    monkeypatch.setattr(Image if where == "open" else PngImageFile, where, full)
    with pytest.raises(MemoryError):
        decode(data, max_pixels=ROOMY)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_decoding_lets_other_threads_run(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    began, other_ran = threading.Event(), False
    decoded = 0

    def work() -> None:
        nonlocal decoded
        began.set()
        while decoded < 500 and not other_ran:
            decode(data, max_pixels=ROOMY)
            decoded += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # now a thread only runs when another lets go of the interpreter by itself
    try:
        thread = threading.Thread(target=work)
        thread.start()
        began.wait()
        other_ran = True
        thread.join()
    finally:
        sys.setswitchinterval(before)
    assert decoded < 500
