"""The routes about a model's policy."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, Field

from gateway.http.keys import require_admin
from gateway.http.models import ModelParam
from gateway.http.problems import PROBLEMS
from gateway.policies import Policies
from gateway.router import Router
from gateway.routing import Fixed, Policy, Shadow, TargetName, Weighted


class InForce(BaseModel):
    """What is known of a policy that is in force, besides itself."""

    model: str
    revision: int
    """Greater with each change; 0: none was ever set, this is the default."""
    updated: datetime | None
    """When it was set."""
    missing: list[TargetName]
    """Targets whose version is not there any more: the default version answers in their place, and shadows nothing."""


class FixedInForce(InForce, Fixed):
    pass


class WeightedInForce(InForce, Weighted):
    pass


class ShadowInForce(InForce, Shadow):
    pass


PolicyInForce = Annotated[FixedInForce | WeightedInForce | ShadowInForce, Field(discriminator="policy")]

_EXAMPLES = {
    "fixed": {"value": {"policy": "fixed", "target": "torch"}},
    "weighted": {"value": {"policy": "weighted", "weights": {"torch": 0.9, "tf@2": 0.1}}},
    "shadow": {"value": {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 1.0}},
}


class RoutingRoutes:
    """The API over the policies. Changes need the admin key."""

    def __init__(self, routing: Router, policies: Policies, *, admin_key: str) -> None:
        self._routing = routing
        self._policies = policies
        self.router = router = APIRouter(responses=PROBLEMS)
        path = "/v1/models/{model}/routing"
        router.add_api_route(path, self.show, response_model=PolicyInForce)
        router.add_api_route(
            path,
            self.set,
            methods=["PUT"],
            response_model=PolicyInForce,
            dependencies=[Depends(require_admin(admin_key))],
        )

    async def show(self, model: ModelParam) -> PolicyInForce:
        """The policy by which requests with `runtime=auto` find their runtime."""
        missing = self._routing.missing(model, self._policies.of(model).policy)
        kept = self._policies.of(model)
        known = {"model": model, "revision": kept.revision, "updated": kept.updated, "missing": missing}
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


_IN_FORCE: dict[type[Policy], type[FixedInForce | WeightedInForce | ShadowInForce]] = {
    Fixed: FixedInForce,
    Weighted: WeightedInForce,
    Shadow: ShadowInForce,
}
