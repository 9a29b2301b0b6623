"""The three forms of a body with pictures → their bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.deadline import Deadline
from gateway.errors import BadRequest, ImageTooLarge, RequestTimeout, TooManyImages, UnsupportedImage
from gateway.http import multipart
from gateway.settings import Settings
from gateway.upload import Upload

_PART = "image"
_MAX_WORD = 100
"""Letters that are said again of what the caller wrote: it may have been megabytes."""


class JsonImage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    b64: str = Field(json_schema_extra={"format": "byte"})
    """The bytes of one picture, base64 (RFC 4648)."""


class JsonImages(BaseModel):
    model_config = ConfigDict(extra="forbid")

    images: list[JsonImage]


_BYTES = {"type": "string", "format": "binary"}


def request_body(max_images: int) -> dict[str, Any]:
    """For the API's description: FastAPI cannot read it off a handler that takes the body in three forms."""
    several = {"type": "array", "minItems": 1, "maxItems": max_images}
    form = {"type": "object", "required": [_PART], "properties": {_PART: several | {"items": _BYTES}}}
    json = {
        "type": "object",
        "additionalProperties": False,
        "required": ["images"],
        "properties": {"images": several | {"items": JsonImage.model_json_schema()}},
    }
    schemas = {"multipart/form-data": form, "image/*": _BYTES, "application/json": json}
    return {"required": True, "content": {media: {"schema": schema} for media, schema in schemas.items()}}


async def read_images(request: Request, settings: Settings, deadline: Deadline, upload: Upload) -> None:
    """Put the bytes of each picture into `upload`, in order: at least one.

    Raises BadRequest, UnsupportedImage, TooManyImages, ImageTooLarge, RequestTimeout, Overloaded, DeadlineExceeded.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json") and not kind.startswith("image/"):
        raise UnsupportedImage(
            f"The body's Content-Type is {kind[:_MAX_WORD] or 'missing'}. Send multipart/form-data with parts named "
            f"'{_PART}' (curl -F image=@picture.jpg), image/* with the picture's bytes, or JSON."
        )
    async with deadline.guard():
        body = await _read_body(request, settings, upload)
    if not body:
        raise BadRequest("The body is empty. Send a picture.")
    if kind == "multipart/form-data":
        images = multipart.files_named(_PART, content_type, body, max_files=settings.limits.max_images)
    elif kind == "application/json":
        images = _from_json(body, settings.limits.max_images)
    else:
        images = [body]
    if not all(images):
        raise BadRequest("A picture has no bytes. Send the file's content.")
    upload.give_back(upload.held - sum(map(len, images)))
    upload.images = images


async def _read_body(request: Request, settings: Settings, upload: Upload) -> bytes:
    """Counted as it arrives: a client need not keep to the length that it declares, and may take its time."""
    limit = settings.limits.max_upload_bytes
    too_large = ImageTooLarge(f"The upload is over the limit of {limit:,} bytes. Send less, or a smaller picture.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    upload.check(int(declared) if declared.isdigit() else 0)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.http.body_timeout_s) as timer:
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                upload.take(len(chunk))
                body += chunk
    except TimeoutError:
        if not timer.expired():
            raise
        raise RequestTimeout(
            f"The body did not arrive within {settings.http.body_timeout_s:g} s. Send it faster, or less of it."
        ) from None
    return bytes(body)


def _from_json(body: bytes, max_images: int) -> list[bytes]:
    # Each picture has one comma, two as a data URL. A value of two bytes takes up to a kilobyte once it is parsed, and
    # all are before the model can count them: 20 MB of zeros took 10 GB.
    if body.count(b",") > 2 * max_images:
        raise TooManyImages(f"The JSON has more values than {max_images} images need. Send several requests.")
    try:
        images = JsonImages.model_validate_json(body).images
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:_MAX_WORD] or "the body"
        raise BadRequest(f'{where}: {first["msg"]}. Send {{"images": [{{"b64": "…"}}]}}.') from None
    if not images:
        raise BadRequest("The list of images is empty. Send a picture.")
    try:
        return [base64.b64decode(image.b64, validate=True) for image in images]
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"A picture's b64 is not valid base64: {error}.") from None
