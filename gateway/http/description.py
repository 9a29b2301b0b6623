"""What the description of the API, `/openapi.json`, says of every answer alike."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.errors import Forbidden, RateLimited, Unauthenticated
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
_OF_KEYS = (Unauthenticated, Forbidden, RateLimited)
_BY_CODE = {error.code: error for error in problems.KINDS}


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
                _refuse(answers)
            on_all = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
            for answer in answers.values():
                answer["headers"] = answer.get("headers", {}) | on_all


def _refuse(answers: dict[str, Any]) -> None:
    """Add what every route that needs a key may answer. One status may have several codes."""
    codes = []
    if "429" in answers:
        codes = answers["429"]["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"]
    refused = problems.answers(*(_BY_CODE[code] for code in codes), *_OF_KEYS)
    answers.update({str(status): answer for status, answer in refused.items() if status != 500})
