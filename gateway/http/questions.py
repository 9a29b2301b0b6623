"""What a request's parameters ask of a model."""

from __future__ import annotations

import time

from gateway.deadline import Deadline
from gateway.http.context import RequestContext
from gateway.http.parameters import InferenceParameters
from gateway.inference import Question
from gateway.request_log import Origin
from gateway.settings import LimitSettings
from gateway.tasks.base import Limits
from gateway.tasks.table import TASKS
from modelkit.spec import ModelSpec


def question_of(
    context: RequestContext,
    spec: ModelSpec,
    parameters: InferenceParameters,
    policy: str,
    limits: LimitSettings,
    *,
    keep_originals: bool,
) -> Question:
    context.facts["version"] = spec.version
    timeout_ms = min(parameters.timeout_ms or limits.timeout_ms, limits.max_timeout_ms)
    # From when the request arrived: whatever has been done for it since is part of its time.
    deadline = Deadline(time.monotonic() - context.clock.elapsed_s() + timeout_ms / 1000)
    defaults = TASKS[spec.task].defaults(spec)
    asked = Limits(
        most=defaults.most if parameters.top_k is None else parameters.top_k,
        min_score=defaults.min_score if parameters.min_score is None else parameters.min_score,
        deadline=deadline,
    )
    origin = Origin(context.request_id, context.time, policy)
    return Question(spec, asked, deadline, origin, keep_originals=keep_originals)
