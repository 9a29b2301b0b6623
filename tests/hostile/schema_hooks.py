"""What schemathesis knows of this API besides its description: what a picture is, and what must stay."""

from __future__ import annotations

import base64
from typing import Any

import schemathesis
from hypothesis import strategies

from tests.support.pictures import encode, plain

_PICTURES = [encode(plain(3), form) for form in ("PNG", "JPEG", "WEBP")]

_pictures = strategies.sampled_from(_PICTURES)
schemathesis.openapi.format("binary", _pictures)
schemathesis.openapi.media_type("image/*", _pictures)
schemathesis.openapi.format("byte", _pictures.map(lambda picture: base64.b64encode(picture).decode()))

_TO_STAY = {"digits", "shapes", "outlines"}


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, Any]) -> None:
    """Nothing is deleted that the others ask for: names are also taken from answers that were seen."""
    if case.method == "DELETE" and case.path_parameters.get("model") in _TO_STAY:
        case.path_parameters["model"] = "unwanted"
