"""Who may use a route: decided by the key in the request's head, before its body is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from gateway.errors import Forbidden
from gateway.http.context import context_of
from gateway.key_file import Right
from gateway.keys import Keys

_SCHEME = "key"


class Guard:
    """Makes the classes of routes that need a right."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def needs(self, right: Right) -> type[APIRoute]:
        """The class of a route that only keys with `right` may use: of an `APIRouter`, or of one route of it.

        A dependency of FastAPI's would be asked after the body was read, however large it is.
        """
        guard = self

        class Guarded(APIRoute):
            def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
                needed: list[dict[str, list[str]]] = [{_SCHEME: []}]
                if right != "admin":
                    needed.append({})  # where no keys are required
                options["openapi_extra"] = {"security": needed} | (options.get("openapi_extra") or {})
                super().__init__(path, endpoint, **options)

            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def guarded(request: Request) -> Response:
                    await guard.admit(request, right)
                    return await handle(request)

                return guarded

        return Guarded

    async def admit(self, request: Request, right: Right) -> None:
        """Raises Unauthenticated, Forbidden. Loopback is no credential."""
        if right != "admin" and not self._keys.required:
            return
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        key = self._keys.find(sent.strip() if scheme.lower() == "bearer" else None)
        context_of(request).facts["key"] = key.name
        if not key.may(right):
            raise Forbidden(
                f"The key {key.name!r} lacks the right {right!r}. Send another one, or ask whoever runs the gateway "
                "for a key that has it."
            )


def describe(app: FastAPI) -> None:
    """Say in the description of the API how keys are sent."""
    described = app.openapi
    scheme = {
        "type": "http",
        "scheme": "bearer",
        "description": "A key from `tandem keys add`, or the admin key. Routes that change nothing need none while the "
        "gateway has no file of keys.",
    }

    def with_keys() -> dict[str, Any]:
        schema = described()
        schema.setdefault("components", {})["securitySchemes"] = {_SCHEME: scheme}
        return schema

    app.openapi = with_keys  # type: ignore[method-assign]
