"""Who may use a route: decided by the key in the request's head, before its body is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from gateway.errors import Forbidden, RateLimited
from gateway.http.context import RequestContext, context_of
from gateway.key_file import Right
from gateway.keys import Keys
from gateway.metrics import Metrics
from gateway.rates import Rates

_SCHEME = "key"


class Guard:
    """Makes the classes of routes that need a right."""

    def __init__(self, keys: Keys, rates: Rates, metrics: Metrics) -> None:
        self._keys = keys
        self._rates = rates
        self._metrics = metrics

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
        """Raises Unauthenticated, Forbidden, RateLimited. Loopback is no credential."""
        if right != "admin" and not self._keys.required:
            return
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        key = self._keys.find(sent.strip() if scheme.lower() == "bearer" else None)
        context = context_of(request)
        context.facts["key"] = key.name
        if not key.may(right):
            raise Forbidden(
                f"The key {key.name!r} lacks the right {right!r}. Send another one, or ask whoever runs the gateway "
                "for a key that has it."
            )
        if key.rate is not None:
            await self._keep_rate(context, key.name, key.rate)

    async def _keep_rate(self, context: RequestContext, name: str, rate: str) -> None:
        """Raises RateLimited. What is left is told as in draft-ietf-httpapi-ratelimit-headers-10."""
        allowance = await self._rates.take(name, rate)
        more_s = math.ceil(allowance.more_s)
        context.headers += [
            (b"ratelimit-policy", f'"{name}";q={allowance.most};w={allowance.window_s}'.encode()),
            (b"ratelimit", f'"{name}";r={allowance.left};t={more_s}'.encode()),
        ]
        if not allowance.granted:
            self._metrics.rate_limited.labels(name).inc()
            most, _, unit = rate.partition("/")
            raise RateLimited(
                f"The key {name!r} has made its {most} requests of this {unit}. Send fewer, or ask whoever runs the "
                "gateway for more.",
                retry_after_s=max(1.0, allowance.more_s),
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
