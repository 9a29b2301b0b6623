"""What the description of the API, `/openapi.json`, says of every answer alike."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.errors import Forbidden, Unauthenticated
from gateway.http import problems

_HEADERS = {
    "X-Request-Id": {
        "description": "Names the request in the log: the client's own X-Request-Id, where it sent a valid one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds of each stage, and in total.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_REFUSED = problems.answers(Unauthenticated, Forbidden)
"""By routes that need a key."""


def complete(app: FastAPI) -> None:
    """Add to what FastAPI reads off the routes the headers of every answer, and the refusals of routes with a key."""
    described = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(described())
        return described()

    app.openapi = whole  # type: ignore[method-assign]


def _complete(api: dict[str, Any]) -> None:
    api["components"]["headers"] = _HEADERS
    for operations in api["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if "security" in operation:
                for status in (401, 403):
                    answers[str(status)] = _REFUSED[status]
            on_all = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
            for answer in answers.values():
                answer["headers"] = answer.get("headers", {}) | on_all
