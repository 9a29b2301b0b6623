"""An answer that is written without the application: to what is no request, or not one that can be taken."""

from __future__ import annotations

import math
import uuid

from gateway.errors import Overload, TandemError
from gateway.http.problems import KINDS, problem_of
from gateway.http.security import SecurityHeaders

_SECURITY = [f"{name.decode()}: {value.decode()}" for name, value in SecurityHeaders(tls=False).plain]


def refusal(error: TandemError) -> bytes:
    """The whole answer, after which the connection ends."""
    request_id = uuid.uuid4().hex
    body = problem_of(error, request_id).model_dump_json().encode()
    kind = KINDS[type(error)]
    lines = [
        f"HTTP/1.1 {kind.status} {kind.title}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        *_SECURITY,
        "connection: close",
    ]
    if isinstance(error, Overload):
        lines.append(f"retry-after: {math.ceil(error.retry_after_s)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
