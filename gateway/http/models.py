"""The routes about models: what there is, which version is the default, and taking them away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict

from gateway.catalogue import Catalogue
from gateway.errors import BadRequest, Conflict, InvalidParameter, ModelNotFound
from gateway.health import Health
from gateway.http import problems
from gateway.http.keys import Guard
from gateway.http.model_answers import (
    ModelAnswer,
    ModelsAnswer,
    RemovedAnswer,
    VersionState,
    model_answer,
    summary_of,
    version_state,
)
from gateway.http.parameters import MAX_VERSION
from gateway.runtimes.base import ModelRef
from modelkit import lifecycle
from modelkit.request import WholeNumber
from modelkit.spec import RUNTIME_NAMES, ModelSpec, RuntimeName

ModelParam = Annotated[str, Path(description="The model's name.", examples=["digits"])]
VersionParam = Annotated[int, Path(description="The version's number.", ge=1, le=MAX_VERSION, examples=[2])]


class DefaultBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: WholeNumber
    """The version that is to answer requests which name none."""


class ModelRoutes:
    """The API over the model store. Changes need the admin key."""

    def __init__(self, store: FilePath, *, catalogue: Catalogue, health: Health, guard: Guard) -> None:
        self._store = store
        self._catalogue = catalogue
        self._health = health

        self.router = router = APIRouter(route_class=guard.needs("read"))
        admin = guard.needs("admin")
        changed = problems.answers(BadRequest, ModelNotFound, Conflict, InvalidParameter)
        removed = problems.answers(ModelNotFound, Conflict, InvalidParameter)
        router.add_api_route("/v1/models", self.models, response_model=ModelsAnswer, responses=problems.answers())
        router.add_api_route(
            "/v1/models/{model}",
            self.model,
            response_model=ModelAnswer,
            responses=problems.answers(ModelNotFound, InvalidParameter),
        )
        router.add_api_route(
            "/v1/models/{model}/default",
            self.set_default,
            methods=["PUT"],
            response_model=ModelAnswer,
            responses=changed,
            route_class_override=admin,
        )
        router.add_api_route(
            "/v1/models/{model}",
            self.remove,
            methods=["DELETE"],
            response_model=RemovedAnswer,
            responses=removed,
            route_class_override=admin,
        )
        router.add_api_route(
            "/v1/models/{model}/versions/{version}",
            self.remove_version,
            methods=["DELETE"],
            response_model=RemovedAnswer,
            responses=removed,
            route_class_override=admin,
        )

    async def models(self) -> ModelsAnswer:
        """Every model, with the state of each version on each runtime."""
        return ModelsAnswer(models=[summary_of(self._answer(name)) for name in self._catalogue])

    async def model(self, model: ModelParam) -> ModelAnswer:
        """One model, with all that the packages of its versions say."""
        return self._answer(model)

    async def set_default(self, model: ModelParam, body: DefaultBody) -> ModelAnswer:
        """Have a version answer requests that name none. The default moves once both runtimes are ready for it.

        Needs the admin key.
        """
        with _in_our_words():
            await asyncio.to_thread(lifecycle.set_default, self._store, model, body.version)
        await self._catalogue.refresh()
        return self._answer(model)

    async def remove(self, model: ModelParam) -> RemovedAnswer:
        """Take a model away, with all its versions. Needs the admin key."""
        return await self._remove(model, None)

    async def remove_version(self, model: ModelParam, version: VersionParam) -> RemovedAnswer:
        """Take a version away. The default is refused while there are others. Needs the admin key."""
        if version == self._catalogue.find(model).version and len(self._catalogue.versions(model)) > 1:
            raise Conflict(
                f"{model} version {version} answers by default. Make another one the default first, and wait until "
                "that has happened."
            )
        return await self._remove(model, version)

    async def _remove(self, model: str, version: int | None) -> RemovedAnswer:
        with _in_our_words():
            gone = await asyncio.to_thread(lifecycle.retire, self._store, model, version)
        await self._catalogue.refresh()
        return RemovedAnswer(model=model, removed=[str(each.number) for each in gone])

    def _answer(self, name: str) -> ModelAnswer:
        specs = self._catalogue.versions(name)
        return model_answer(
            specs,
            default=self._catalogue.default(name),
            wanted=self._catalogue.wanted(name),
            states={
                spec.version: {runtime: self._health.status(runtime, ModelRef.of(spec)) for runtime in RUNTIME_NAMES}
                for spec in specs
            },
        )


def version_states(spec: ModelSpec, health: Health) -> dict[RuntimeName, VersionState]:
    """The state of one version on each runtime."""
    return {
        runtime: version_state(spec.version, health.status(runtime, ModelRef.of(spec))) for runtime in RUNTIME_NAMES
    }


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What the store says no to, as the API says it."""
    try:
        yield
    except lifecycle.NoSuchVersion as error:
        raise ModelNotFound(str(error)) from error
    except lifecycle.Refused as error:
        raise Conflict(str(error)) from error
