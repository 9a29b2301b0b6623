"""What the description of the API, `/openapi.json`, says of every answer alike."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

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


def complete(app: FastAPI) -> None:
    """Add to what FastAPI reads off the routes the headers that are on every answer."""
    described = app.openapi

    def whole() -> dict[str, Any]:
        api = described()
        api.setdefault("components", {}).setdefault("headers", {}).update(_HEADERS)
        on_all = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
        for operations in api["paths"].values():
            for operation in operations.values():
                for answer in operation["responses"].values():
                    answer["headers"] = answer.get("headers", {}) | on_all
        return api

    app.openapi = whole  # type: ignore[method-assign]
