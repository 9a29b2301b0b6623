"""The routes about a model's policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from gateway.errors import BadRequest, Conflict, DatabaseUnavailable, InvalidParameter, ModelNotFound
from gateway.http import problems
from gateway.http.keys import Guard
from gateway.http.models import ModelParam
from gateway.policies import Kept, Policies
from gateway.progress import Action
from gateway.router import Router
from gateway.routing import Canary, Failover, Fastest, Fixed, Policy, Progress, Shadow, TargetName, Weighted

_EVENTS = 10


class EventAnswer(BaseModel):
    """Something that was decided about a canary."""

    time: datetime
    revision: int
    """Of the policy."""
    step: int
    """Index into the steps: the one from then on; of a roll-back the one that ended."""
    action: Action
    why: str


class ProgressAnswer(BaseModel):
    """How far a canary has come."""

    state: Literal["running", "promoted", "rolled_back"]
    step: int
    """Index into the steps."""
    share: float
    """Of the requests, that `to` answers now."""
    since: datetime
    """When this step began, or the canary ended."""
    why: str
    """What was decided last, or what it waits for."""


class InForce(BaseModel):
    """What is known of a policy that is in force, besides itself."""

    model: str
    revision: int
    """Greater with each change; 0: none was ever set, this is the default."""
    updated: datetime | None
    """When it was set."""
    missing: list[TargetName]
    """Targets whose version is not there any more: the default version answers in their place, and shadows nothing."""
    history: list[EventAnswer] | None
    """The last ten decisions about the model's canaries, the newest first; null while the database is away."""


class FixedInForce(InForce, Fixed):
    pass


class WeightedInForce(InForce, Weighted):
    pass


class ShadowInForce(InForce, Shadow):
    pass


class FastestInForce(InForce, Fastest):
    expected_ms: dict[str, float | None]
    """How long each target takes, as the process that answers this has seen it in the last seconds; null: not known."""


class FailoverInForce(InForce, Failover):
    pass


class CanaryInForce(InForce, Canary):
    progress: ProgressAnswer | None
    """Null: not known yet; `from` answers."""


PolicyInForce = Annotated[
    FixedInForce | WeightedInForce | ShadowInForce | FastestInForce | FailoverInForce | CanaryInForce,
    Field(discriminator="policy"),
]

_EXAMPLES = {
    "fixed": {"value": {"policy": "fixed", "target": "torch"}},
    "weighted": {"value": {"policy": "weighted", "weights": {"torch": 0.9, "tf@2": 0.1}, "failover": True}},
    "shadow": {
        "value": {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 1.0, "control_rate": 0.2}
    },
    "fastest": {"value": {"policy": "fastest", "targets": ["torch", "tf"], "explore": 0.05}},
    "failover": {
        "value": {"policy": "failover", "targets": ["torch", "tf"], "hedge": {"after_ms": None, "budget": 0.05}}
    },
    "canary": {
        "value": {
            "policy": "canary",
            "from": "torch",
            "to": "tf",
            "steps": [0.01, 0.05, 0.25, 1.0],
            "hold_s": 600,
            "sample_rate": 0.1,
            "guards": {"latency_ratio": 1.1, "error_rate": 0.01, "agreement": 0.99},
        }
    },
}


class RoutingRoutes:
    """The API over the policies. Changes need the admin key."""

    def __init__(self, routing: Router, policies: Policies, *, guard: Guard) -> None:
        self._routing = routing
        self._policies = policies
        self.router = router = APIRouter(route_class=guard.needs("read"))
        path = "/v1/models/{model}/routing"
        router.add_api_route(
            path,
            self.show,
            response_model=PolicyInForce,
            responses=problems.answers(ModelNotFound, InvalidParameter),
        )
        router.add_api_route(
            path,
            self.set,
            methods=["PUT"],
            response_model=PolicyInForce,
            responses=problems.answers(BadRequest, ModelNotFound, Conflict, InvalidParameter, DatabaseUnavailable),
            route_class_override=guard.needs("admin"),
        )

    async def show(self, model: ModelParam) -> PolicyInForce:
        """The policy by which requests with `runtime=auto` find their runtime."""
        missing = self._routing.missing(model, self._policies.of(model).policy)
        history = await self._history(model)
        kept = self._policies.of(model)
        known = {"model": model, "revision": kept.revision, "updated": kept.updated, "missing": missing}
        known |= {"history": history} | self._more(model, kept)
        return _IN_FORCE[type(kept.policy)].model_validate(kept.policy.model_dump() | known)

    async def set(
        self, model: ModelParam, policy: Annotated[Policy, Body(openapi_examples=_EXAMPLES)]
    ) -> PolicyInForce:
        """Put a policy in force: here at once, in other gateway processes within a second. Needs the admin key.

        One that is refused changes nothing.
        """
        self._routing.check(model, policy)
        await self._policies.set(model, policy)
        return await self.show(model)

    async def _history(self, model: str) -> list[EventAnswer] | None:
        try:
            events = await self._policies.history(model, _EVENTS)
        except DatabaseUnavailable:
            return None
        return [EventAnswer.model_validate(vars(event) | {"time": _moment(event.time)}) for event in events]

    def _more(self, model: str, kept: Kept) -> dict[str, Any]:
        match kept.policy:
            case Fastest(targets=targets):
                expected = {str(each): self._routing.expected_s(model, each) for each in targets}
                return {
                    "expected_ms": {name: None if s is None else round(s * 1000, 3) for name, s in expected.items()}
                }
            case Canary() as policy:
                return {"progress": None if kept.progress is None else _progress(policy, kept.progress)}
        return {}


def _progress(policy: Canary, progress: Progress) -> ProgressAnswer:
    known = vars(progress) | {"share": policy.share(progress), "since": _moment(progress.since)}
    return ProgressAnswer.model_validate(known)


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


_IN_FORCE: dict[type[Policy], type[PolicyInForce]] = {
    Fixed: FixedInForce,
    Weighted: WeightedInForce,
    Shadow: ShadowInForce,
    Fastest: FastestInForce,
    Failover: FailoverInForce,
    Canary: CanaryInForce,
}
