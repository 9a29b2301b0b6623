"""The pictures of successful answers."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image

from gateway.disagreement_table import Disagreement
from gateway.http.accept import MediaType
from gateway.images.decode import decode
from gateway.images.draw import drawn, side_by_side
from gateway.inference import Answer
from gateway.service import Comparison
from modelkit.spec import RuntimeName


def predict_drawing(answer: Answer, media: MediaType) -> bytes:
    """The answer's only picture with its predictions."""
    return _encoded(_drawn(answer), media)


def compare_drawing(comparison: Comparison, media: MediaType) -> bytes:
    """The only picture twice: what each runtime found, and where one failed, which error that was."""
    panels = []
    for name, answer in comparison.answers.items():
        if isinstance(answer, Answer):
            panels.append((_title(answer.runtime, answer.spec.version, answer.clock.timing_ms()), _drawn(answer)))
        else:
            panels.append((f"{name}: {answer.code}", comparison.pictures[0].original))
    return _encoded(side_by_side(panels), media)


def disagreement_drawing(disagreement: Disagreement, upload: bytes, max_pixels: int, media: MediaType) -> bytes:
    """The picture twice: what each answer said. Raises ImageTooLarge where the limit is lower by now."""
    picture = decode(upload, max_pixels=max_pixels)
    panels = [
        (_title(side.runtime, side.version, side.timing_ms), drawn(picture, disagreement.task, side.predictions))
        for side in disagreement.answers
    ]
    return _encoded(side_by_side(panels), media)


def _title(runtime: RuntimeName, version: int | str, timing_ms: Mapping[str, float]) -> str:
    return f"{runtime}, version {version}, rpc {timing_ms['rpc']:.1f} ms"


def _drawn(answer: Answer) -> Image.Image:
    return drawn(answer.pictures[0].original, answer.spec.task, answer.found[0].predictions)


def _encoded(image: Image.Image, media: MediaType) -> bytes:
    buffer = io.BytesIO()
    if media == "image/png":
        image.save(buffer, "PNG", compress_level=1)  # looked at once: quick rather than small
    else:
        image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
