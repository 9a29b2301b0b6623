"""What schemathesis knows of this API besides its description: what a picture is."""

from __future__ import annotations

import base64

import schemathesis
from hypothesis import strategies

from tests.support.pictures import encode, plain

_PICTURES = [encode(plain(3), form) for form in ("PNG", "JPEG", "WEBP")]

_pictures = strategies.sampled_from(_PICTURES)
schemathesis.openapi.format("binary", _pictures)
schemathesis.openapi.media_type("image/*", _pictures)
schemathesis.openapi.format("byte", _pictures.map(lambda picture: base64.b64encode(picture).decode()))
