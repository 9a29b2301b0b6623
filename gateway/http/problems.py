"""The one table from errors to HTTP, and the answers made from it: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from gateway import errors
from gateway.errors import TandemError
from gateway.http.context import RequestContext, context_of
from gateway.metrics import Metrics


@dataclass(frozen=True)
class Kind:
    status: int
    title: str


KINDS: dict[type[TandemError], Kind] = {
    errors.BadRequest: Kind(400, "The request's body cannot be read"),
    errors.InvalidParameter: Kind(422, "A parameter is not valid"),
    errors.TooManyImages: Kind(422, "Too many images"),
    errors.RequestTimeout: Kind(408, "The request did not arrive in time"),
    errors.HeadTooLarge: Kind(431, "The request's head is too large"),
    errors.NotAcceptable: Kind(406, "Cannot make what Accept asks for"),
    errors.UnsupportedImage: Kind(415, "Not an image type we read"),
    errors.InvalidImage: Kind(422, "The image cannot be decoded"),
    errors.ImageTooLarge: Kind(413, "Image too large"),
    errors.ModelNotFound: Kind(404, "No such model"),
    errors.JobNotFound: Kind(404, "No such job"),
    errors.DisagreementNotFound: Kind(404, "No such disagreement"),
    errors.Conflict: Kind(409, "Conflicts with the present state"),
    errors.Unauthenticated: Kind(401, "A key is needed"),
    errors.Forbidden: Kind(403, "This key may not do that"),
    errors.Overloaded: Kind(429, "Too many requests at once"),
    errors.TooManyConnections: Kind(503, "Too many connections at once"),
    errors.Stopping: Kind(503, "The gateway is stopping"),
    errors.RateLimited: Kind(429, "Too many requests with this key"),
    errors.RuntimeUnavailable: Kind(503, "The runtime is not available"),
    errors.DatabaseUnavailable: Kind(503, "The database is not available"),
    errors.StatisticsUnavailable: Kind(503, "The statistics are not available"),
    errors.DeadlineExceeded: Kind(504, "The deadline passed"),
    errors.RuntimeFailed: Kind(502, "The runtime failed"),
}

_COME_BACK = errors.Overload | errors.RuntimeUnavailable | errors.DatabaseUnavailable | errors.StatisticsUnavailable
"""These say when to try again."""

_MAX_WORD = 100
"""Letters that are said again of what the caller wrote: it may have been kilobytes."""
_MAX_MISTAKES = 8
"""Of the parameters, named in one answer."""


class Problem(BaseModel):
    """The body of every answer that is not a success."""

    type: str
    """An address that names the kind of problem."""
    title: str
    status: int
    detail: str
    """What happened, and what to do next."""
    code: str
    request_id: str


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_RETRY_AFTER = {"description": "Seconds after which to try again.", "required": True, "schema": {"type": "integer"}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How keys are sent.", "required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}


def answers(*expected: type[TandemError]) -> dict[int | str, dict[str, Any]]:
    """What a route may answer instead, for the description of the API; a fault of ours is always among it."""
    said: dict[int, dict[str, str]] = {}
    for error in expected:
        said.setdefault(KINDS[error].status, {})[error.code] = KINDS[error].title
    if 404 in said:  # a name with a slash in it is another path
        said[404]["not_found"] = "No such route"
    said[500] = {"internal_error": "Internal error"}
    return {status: _described(status, titles) for status, titles in sorted(said.items())}


def _described(status: int, titles: dict[str, str]) -> dict[str, Any]:
    schema = {
        "allOf": [{"$ref": f"#/components/schemas/{Problem.__name__}"}],
        "properties": {"status": {"const": status}, "code": {"enum": list(titles)}},
    }
    return {
        "description": "; ".join(f"`{code}`: {title}" for code, title in titles.items()) + ".",
        "headers": _HEADERS.get(status, {}),
        "content": {"application/problem+json": {"schema": schema}},
    }


def problem_of(error: TandemError, request_id: str) -> Problem:
    kind = KINDS[type(error)]
    return _problem(kind.status, error.code, kind.title, str(error), request_id)


def _problem(status: int, code: str, title: str, detail: str, request_id: str) -> Problem:
    return Problem(
        type=f"urn:tandem:problem:{code}", title=title, status=status, detail=detail, code=code, request_id=request_id
    )


def _response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(problem.model_dump_json(), problem.status, headers=headers, media_type="application/problem+json")


def _said(error: dict[str, Any]) -> str:
    """Pydantic's message, but for one that says nothing to a caller, and one that repeats what came."""
    if error["type"] == "extra_forbidden":
        return "no such parameter here; /docs lists them"
    if error["type"] == "union_tag_invalid":
        return f"must be one of {error['ctx']['expected_tags']}"
    return str(error["msg"]).removeprefix("Value error, ")


def _allowed(request: Request) -> str:
    """The methods of the path, for `Allow` (RFC 9110, 10.2.1). Starlette names those of the first route of several."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(takes, _METHODS))


def internal_error(context: RequestContext) -> Response:
    """The answer to a fault of ours. It says nothing of the fault: that is in the log, under the request's id."""
    context.code = "internal_error"
    detail = "A fault of the gateway's. Its log has the cause under this request_id."
    return _response(_problem(500, "internal_error", "Internal error", detail, context.request_id))


def answer(error: TandemError, context: RequestContext, metrics: Metrics) -> Response:
    """The answer to `error`, which is counted, and kept in `context` for the log."""
    context.code, context.detail = error.code, str(error)
    context.cause = None if error.__cause__ is None else str(error.__cause__)
    if isinstance(error, errors.RequestError | errors.Overload):
        metrics.rejected.labels(error.code).inc()
    headers = {}
    if isinstance(error, _COME_BACK):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return _response(problem_of(error, context.request_id), headers)


def install(app: FastAPI, metrics: Metrics) -> None:
    """Answer every error of `app` with a problem."""

    async def on_tandem_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, TandemError)  # noqa: S101  Starlette's signature is wider than the registration
        return answer(error, context_of(request), metrics)

    async def on_invalid_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        detail = "; ".join(
            f"{str(each['loc'][-1])[:_MAX_WORD]}: {_said(each)}" for each in error.errors()[:_MAX_MISTAKES]
        )
        return await on_tandem_error(request, errors.InvalidParameter(f"{detail.removesuffix('.')}."))

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        context = context_of(request)
        code, title = {
            404: ("not_found", "No such route"),
            405: ("method_not_allowed", "Method not allowed here"),
        }.get(error.status_code, ("bad_request", KINDS[errors.BadRequest].title))
        context.code, context.detail = code, title
        detail = (
            f"{error.detail}. /docs describes what this route takes."
            if code == "bad_request"
            else f"{request.method} {request.url.path[:_MAX_WORD]} is not part of this API. See /docs."
        )
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _allowed(request) or "GET, HEAD"  # no route of ours: a file of the pages
        return _response(_problem(error.status_code, code, title, detail, context.request_id), headers)

    app.add_exception_handler(TandemError, on_tandem_error)
    app.add_exception_handler(RequestValidationError, on_invalid_parameter)
    app.add_exception_handler(HTTPException, on_http_exception)
