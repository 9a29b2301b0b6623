"""What an answer should come as: the `Accept` header (RFC 9110, 12.5.1) against what can be made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from gateway.errors import NotAcceptable

MediaType = Literal["application/json", "image/png", "image/jpeg"]
MEDIA_TYPES: tuple[MediaType, ...] = get_args(MediaType)
"""Of equally wanted ones, the first is sent."""
PICTURES = MEDIA_TYPES[1:]
PICTURE_SCHEMA = {"schema": {"type": "string", "format": "binary"}}
"""Of a picture, in the description of the API."""


def choose(accept: Sequence[str]) -> MediaType:
    """The type that the `Accept` headers want most; JSON where there are none. Raises NotAcceptable."""
    ranges = [each for header in accept for each in map(_read, header.split(",")) if each[0]]
    if not ranges:
        return MEDIA_TYPES[0]
    quality = {media: _quality(media, ranges) for media in MEDIA_TYPES}
    best = max(MEDIA_TYPES, key=quality.__getitem__)
    if quality[best] == 0:
        raise NotAcceptable(
            f"This answer comes as {', '.join(MEDIA_TYPES[:-1])} or {MEDIA_TYPES[-1]}, not as {', '.join(accept)}. "
            "Send Accept: application/json."
        )
    return best


def _quality(media: MediaType, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality value of the range that says most about `media`."""
    for name in (media, f"{media.partition('/')[0]}/*", "*/*"):
        for given, quality in ranges:
            if given == name:
                return quality
    return 0.0


def _read(part: str) -> tuple[str, float]:
    """A range and its quality value: 1 where it names none; 0 where it is no number, as nothing is said of it."""
    name, *parameters = (each.strip().lower() for each in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return name, 0.0
    return name, 1.0
