"""A picture with what was found in it drawn on. The font is Pillow's own: a letter that it lacks shows as a box."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gateway.tasks.detect import Detection
from gateway.tasks.mask import Mask
from gateway.tasks.segment import Segmentation
from modelkit.spec import Task

_MASK_OPACITY = 0.45
_GOLDEN = 0.618034
"""Steps of the golden ratio around the circle of hues: neighbouring class ids differ most."""

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def drawn(picture: Image.Image, task: Task, predictions: Sequence[Any]) -> Image.Image:
    """A copy of the RGB picture with boxes and masks where they are, or with the classes written below.

    `predictions` are those of a model of `task`, best first.
    """
    if task == "classify":
        lines = [f"{each.label} {each.score:.3f}" for each in predictions]
        return _captioned(picture, lines or ["nothing found"], _font(picture), above=False)
    picture = picture.copy()
    if task == "segment":
        for prediction in reversed(predictions):
            x, pixels = Mask.read(prediction.mask.size, prediction.mask.counts).columns()
            opacity = Image.fromarray(pixels.astype(np.uint8) * round(255 * _MASK_OPACITY))
            picture.paste(colour_of(prediction.class_id), (x, 0), opacity)
    canvas = ImageDraw.Draw(picture)
    for prediction in reversed(predictions):  # the best lies on top
        _draw_box(canvas, prediction, picture, _font(picture))
    return picture


def side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures from left to right, each under its title."""
    titled = [_captioned(picture, [title], _font(picture), above=True) for title, picture in panels]
    gap = max(4, titled[0].width // 100)
    width = sum(each.width for each in titled) + gap * (len(titled) - 1)
    sheet = Image.new("RGB", (width, max(each.height for each in titled)), WHITE)
    x = 0
    for each in titled:
        sheet.paste(each, (x, 0))
        x += each.width + gap
    return sheet


def colour_of(class_id: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN % 1, 0.9, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_box(
    canvas: ImageDraw.ImageDraw, prediction: Detection | Segmentation, picture: Image.Image, font: Font
) -> None:
    colour, box = colour_of(prediction.class_id), prediction.box
    # A pixel's edges are at whole numbers: the last one of a box to 10 is 9.
    x2, y2 = max(box.x1, box.x2 - 1), max(box.y1, box.y2 - 1)
    canvas.rectangle((box.x1, box.y1, x2, y2), outline=colour, width=max(2, min(picture.size) // 240))
    text = f"{prediction.label} {prediction.score:.2f}"
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Hg")  # every label as high as any
    margin = max(2, round(bottom - top) // 4)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(box.x1, picture.width - width))
    y = box.y1 - height if box.y1 >= height else box.y1
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    canvas.text((x + margin - left, y + margin - top), text, fill=_readable_on(colour), font=font)


def _captioned(picture: Image.Image, lines: Sequence[str], font: Font, *, above: bool) -> Image.Image:
    """The picture with a white strip of text; as wide as the text where that is wider."""
    boxes = [font.getbbox(line) for line in lines]
    margin = max(3, round(max(bottom for *_, bottom in boxes)) // 4)
    line_height = round(max(bottom for *_, bottom in boxes)) + margin
    strip = line_height * len(lines) + margin
    width = max(picture.width, *(round(right) + 2 * margin for _, _, right, _ in boxes))
    sheet = Image.new("RGB", (width, picture.height + strip), WHITE)
    sheet.paste(picture, (0, strip if above else 0))
    canvas = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        y = (0 if above else picture.height) + margin + number * line_height
        canvas.text((margin, y), line, fill=BLACK, font=font)
    return sheet


def _readable_on(colour: Colour) -> Colour:
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE  # luma of ITU-R BT.601


def _font(picture: Image.Image) -> Font:
    return _font_of_size(min(64, max(12, min(picture.size) // 30)))


@lru_cache
def _font_of_size(size: int) -> Font:
    return ImageFont.load_default(size)
