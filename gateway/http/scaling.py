"""The route by which a model's replicas at a runtime change while it serves."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    InvalidParameter,
    ModelNotFound,
    RuntimeFailed,
    RuntimeUnavailable,
)
from gateway.http import problems
from gateway.http.keys import Guard
from gateway.http.models import ModelParam
from gateway.runtimes.base import ModelRef, Runtime
from modelkit.request import WholeNumber
from modelkit.spec import RuntimeName

_TIMEOUT_MS = 80_000
"""For new processes to start and load the model; the command line waits for 90 s."""
UNTIL = "until the runtime's worker starts anew: TANDEM_WORKERS__REPLICAS is what it starts with"


class ScaleBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    runtime: RuntimeName
    replicas: WholeNumber = Field(le=64)
    """Batches of the model that each worker of the runtime computes at once."""
    version: WholeNumber | None = None
    """The version to scale; null: the default."""


class ScaleAnswer(BaseModel):
    model: str
    version: str
    runtime: RuntimeName
    replicas: int
    holds: str = UNTIL
    """How long it stays so."""


class ScalingRoutes:
    def __init__(self, runtimes: Mapping[RuntimeName, Runtime], *, catalogue: Catalogue, guard: Guard) -> None:
        self._runtimes = runtimes
        self._catalogue = catalogue
        self.router = APIRouter(route_class=guard.needs("admin"))
        self.router.add_api_route(
            "/v1/models/{model}/scale",
            self.scale,
            methods=["PUT"],
            response_model=ScaleAnswer,
            responses=problems.answers(
                BadRequest,
                ModelNotFound,
                Conflict,
                InvalidParameter,
                RuntimeFailed,
                RuntimeUnavailable,
                DeadlineExceeded,
            ),
        )

    async def scale(self, model: ModelParam, body: ScaleBody) -> ScaleAnswer:
        """Have each worker of a runtime compute so many batches of a model at once.

        The answer comes when that is so, and it holds until the worker starts anew. TorchServe can do it;
        TensorFlow Serving cannot (409). Needs the admin key.
        """
        found = ModelRef.of(self._catalogue.find(model, body.version))
        await self._runtimes[body.runtime].scale(found, body.replicas, deadline=Deadline.after_ms(_TIMEOUT_MS))
        return ScaleAnswer(model=model, version=str(found.version), runtime=body.runtime, replicas=body.replicas)
