"""Predictions for which there is no room, refused before anything else is done for them.

Of a flood most requests are. The way through the framework costs several times as much as their answer, and the gateway
may share its cores with the workers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from gateway.errors import Overloaded, TandemError
from gateway.http import problems
from gateway.http.context import RequestContext
from gateway.http.keys import Guard
from gateway.http.parameters import MAX_KEY, PredictParameters
from gateway.http.questions import question_of
from gateway.metrics import Metrics
from gateway.router import Router
from gateway.service import Service
from gateway.settings import LimitSettings

_PATH = re.compile(r"/v1/models/([^/]+)/predict")
_MAX_QUERY = 256
"""Bytes of a query that is kept in parsed form: a client's has the same in each request."""


class Turnstile:
    def __init__(
        self, limits: LimitSettings, *, guard: Guard, routing: Router, service: Service, metrics: Metrics
    ) -> None:
        self._limits = limits
        self._guard = guard
        self._routing = routing
        self._service = service
        self._metrics = metrics

    def refuse(self, scope: Scope, context: RequestContext) -> Response | None:
        """The answer to a request that has no room now. None: it goes its usual way, on which it is also told what is
        wrong with it."""
        if not self._service.crowded or scope["method"] != "POST" or len(scope["query_string"]) > _MAX_QUERY:
            return None
        path, parameters = _PATH.fullmatch(scope["path"]), _parameters(scope["query_string"])
        headers = Headers(scope=scope)
        key = headers.get("x-tandem-key")
        if path is None or parameters is None or len(key or "") > MAX_KEY:
            return None
        model = path[1]
        runtime = None if parameters.runtime == "auto" else parameters.runtime
        try:
            if not self._guard.admits_at_once(headers, "predict", context):
                return None
            plan = self._routing.plan(model, runtime=runtime, version=parameters.version, key=key)
            context.facts["model"] = model
            spec = plan.primary.spec
            question = question_of(context, spec, parameters, plan.policy, self._limits, keep_originals=False)
            self._service.check(question, plan)
        except Overloaded as refusal:
            return problems.answer(refusal, context, self._metrics)
        except TandemError:
            return None
        context.plan = plan
        return None


@lru_cache(1024)
def _parameters(query: bytes) -> PredictParameters | None:
    """None where they are not valid."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    try:
        return PredictParameters.model_validate(dict(pairs))
    except ValidationError:
        return None
