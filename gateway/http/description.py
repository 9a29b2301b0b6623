"""What the description of the API, `/openapi.json`, says of every answer alike."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from gateway.errors import Forbidden, RateLimited, Unauthenticated
from gateway.http import problems
from gateway.http.keys import SCHEME

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
_REFUSED = problems.answers(Unauthenticated, Forbidden, RateLimited)
"""By routes that need a key."""
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key from `tandem keys add`, or the admin key. Routes that change nothing need none while the "
    "gateway has no file of keys.",
}


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
    api["components"]["securitySchemes"] = {SCHEME: _KEY}
    for operations in api["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if "security" in operation:
                for status, refused in _REFUSED.items():
                    there = answers.get(str(status))
                    answers[str(status)] = refused if there is None else _either(there, refused)
            on_all = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
            for answer in answers.values():
                answer["headers"] = answer.get("headers", {}) | on_all


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The description of an answer that may be either of two problems of the same status."""
    both = deepcopy(one)
    codes = _codes(both)
    if more := [code for code in _codes(other) if code not in codes]:
        codes += more
        both["description"] = f"{one['description'].removesuffix('.')}; {other['description']}"
    return both


def _codes(answer: dict[str, Any]) -> list[str]:
    codes: list[str] = answer["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"]
    return codes
