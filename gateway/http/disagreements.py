"""The routes about pictures that were kept because two answers differ."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from gateway.deadline import Deadline
from gateway.disagreement_table import Disagreement
from gateway.disagreements import Disagreements
from gateway.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    DisagreementNotFound,
    InvalidParameter,
    NotAcceptable,
    Overloaded,
)
from gateway.http import accept, drawings, problems
from gateway.http.keys import Guard
from gateway.images.decode import media_type
from gateway.settings import LimitSettings
from gateway.threads import Threads
from modelkit.spec import ModelName

Number = Annotated[int, Path(description="The disagreement's id.", ge=1, le=2**63 - 1)]


class OfModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName | None = Field(None, description="Only this model's; by default those of all.")


class ListParameters(OfModel):
    limit: int = Field(50, ge=1, le=200, description="Most that are answered.")
    before: int | None = Field(None, ge=1, le=2**63 - 1, description="Only those with a lower id: the next page.")


class DisagreementsAnswer(BaseModel):
    disagreements: list[Disagreement]
    """Newest first, without masks."""


class ClearedAnswer(BaseModel):
    removed: int


class DisagreementRoutes:
    """All of them need the admin key: pictures are private."""

    def __init__(self, disagreements: Disagreements, *, threads: Threads, limits: LimitSettings, guard: Guard) -> None:
        """`threads`: where pictures are drawn."""
        self._disagreements = disagreements
        self._threads = threads
        self._limits = limits
        self.router = router = APIRouter(route_class=guard.needs("admin"))
        path = "/v1/disagreements"
        of_all = (InvalidParameter, DatabaseUnavailable)
        of_one = (*of_all, DisagreementNotFound)
        router.add_api_route(path, self.newest, response_model=DisagreementsAnswer, responses=problems.answers(*of_all))
        router.add_api_route(
            path, self.clear, methods=["DELETE"], response_model=ClearedAnswer, responses=problems.answers(*of_all)
        )
        as_picture = {"content": dict.fromkeys(accept.PICTURES, accept.PICTURE_SCHEMA)}
        router.add_api_route(
            f"{path}/{{number}}",
            self.one,
            responses=problems.answers(*of_one, NotAcceptable, Overloaded, DeadlineExceeded)
            | {200: {"model": Disagreement, **as_picture}},
        )
        router.add_api_route(
            f"{path}/{{number}}/picture",
            self.picture,
            responses=problems.answers(*of_one) | {200: {"content": {"image/*": accept.PICTURE_SCHEMA}}},
            response_class=Response,
        )

    async def newest(self, parameters: Annotated[ListParameters, Query()]) -> DisagreementsAnswer:
        """What is kept, newest first: what both answers said, without masks."""
        found = await self._disagreements.newest(parameters.model, limit=parameters.limit, before=parameters.before)
        return DisagreementsAnswer(disagreements=found)

    async def clear(self, parameters: Annotated[OfModel, Query()]) -> ClearedAnswer:
        """Remove all that is kept, or what is kept of a model."""
        return ClearedAnswer(removed=await self._disagreements.clear(parameters.model))

    async def one(self, request: Request, number: Number) -> Response:
        """Both answers, as they were given.

        With `Accept: image/png` or `image/jpeg` the picture twice, with each answer drawn.
        """
        media = accept.choose(request.headers.getlist("accept"))
        disagreement = await self._disagreements.find(number)
        if media not in accept.PICTURES:
            return Response(disagreement.model_dump_json(), media_type=media)
        upload = await self._disagreements.picture(number)
        drawing = partial(drawings.disagreement_drawing, disagreement, upload, self._limits.max_pixels, media)
        drawn = await self._threads.run(Deadline.after_ms(self._limits.timeout_ms), drawing)
        return Response(drawn, media_type=media)

    async def picture(self, number: Number) -> Response:
        """The picture as it was uploaded."""
        upload = await self._disagreements.picture(number)
        kind = media_type(upload)
        return Response(
            upload,
            media_type=kind,
            headers={
                "Content-Disposition": f'attachment; filename="disagreement-{number}.{kind.removeprefix("image/")}"',
            },
        )
