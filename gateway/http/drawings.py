"""The pictures of successful answers."""

from __future__ import annotations

import io

from PIL import Image

from gateway.http.accept import MediaType
from gateway.images.draw import drawn, side_by_side
from gateway.inference import Answer
from gateway.service import Comparison


def predict_drawing(answer: Answer, media: MediaType) -> bytes:
    """The answer's only picture with its predictions."""
    return _encoded(_drawn(answer), media)


def compare_drawing(comparison: Comparison, media: MediaType) -> bytes:
    """The only picture twice: what each runtime found, and where one failed, which error that was."""
    panels = []
    for name, answer in comparison.answers.items():
        if isinstance(answer, Answer):
            title = f"{name}, version {answer.spec.version}, rpc {answer.clock.timing_ms()['rpc']:.1f} ms"
            panels.append((title, _drawn(answer)))
        else:
            panels.append((f"{name}: {answer.code}", comparison.pictures[0].original))
    return _encoded(side_by_side(panels), media)


def _drawn(answer: Answer) -> Image.Image:
    return drawn(answer.pictures[0].original, answer.found[0])


def _encoded(image: Image.Image, media: MediaType) -> bytes:
    buffer = io.BytesIO()
    if media == "image/png":
        image.save(buffer, "PNG", compress_level=1)  # looked at once: quick rather than small
    else:
        image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
