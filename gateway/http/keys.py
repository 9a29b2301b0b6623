"""Who may use a route: decided by the key in the request's head, before its body is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response

from gateway.errors import Forbidden, RateLimited
from gateway.http.context import RequestContext, context_of
from gateway.key_file import Key, Right
from gateway.keys import Keys
from gateway.metrics import Metrics
from gateway.rates import Rates

SCHEME = "key"
"""The name of how keys are sent, in the description of the API."""


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
                needed: list[dict[str, list[str]]] = [{SCHEME: []}]
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
        context = context_of(request)
        key = self._find(request.headers, right, context)
        if key is None:
            return
        if not key.may(right):
            raise Forbidden(
                f"The key {key.name!r} lacks the right {right!r}. Send another one, or ask whoever runs the gateway "
                "for a key that has it."
            )
        if key.rate is not None:
            await self._keep_rate(context, key.name, key.rate)

    def admits_at_once(self, headers: Headers, right: Right, context: RequestContext) -> bool:
        """Whether `admit` lets it in, and does not count it. Raises Unauthenticated."""
        key = self._find(headers, right, context)
        return key is None or (key.may(right) and key.rate is None)

    def _find(self, headers: Headers, right: Right, context: RequestContext) -> Key | None:
        """None where none is needed. Raises Unauthenticated."""
        if right != "admin" and not self._keys.required:
            return None
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        key = self._keys.find(sent.strip() if scheme.lower() == "bearer" else None)
        context.facts["key"] = key.name
        return key

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
