"""The routes of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from gateway import errors, spans
from gateway.catalogue import Catalogue
from gateway.errors import NotAcceptable
from gateway.health import Health
from gateway.http import accept, answers, drawings, problems
from gateway.http.bodies import read_images, request_body
from gateway.http.context import RequestContext, context_of
from gateway.http.keys import Guard
from gateway.http.models import ModelParam, version_states
from gateway.http.parameters import MAX_KEY, CompareParameters, InferenceParameters, PredictParameters
from gateway.http.presence import Presence
from gateway.http.questions import question_of
from gateway.inference import Question
from gateway.metrics import Metrics
from gateway.router import Router
from gateway.service import Service
from gateway.settings import Settings
from gateway.upload import Upload
from modelkit.spec import ModelSpec

KeyHeader = Annotated[
    str | None,
    Header(
        alias="X-Tandem-Key",
        max_length=MAX_KEY,
        description="What the request belongs to, such as a customer: where a policy spreads requests over targets, "
        "those with the same key are answered by the same one.",
    ),
]


_INFERENCE = (
    errors.BadRequest,
    errors.ModelNotFound,
    errors.NotAcceptable,
    errors.RequestTimeout,
    errors.ImageTooLarge,
    errors.UnsupportedImage,
    errors.InvalidParameter,
    errors.TooManyImages,
    errors.InvalidImage,
    errors.Overloaded,
    errors.DeadlineExceeded,
)
_RUNTIME = (errors.RuntimeFailed, errors.RuntimeUnavailable)


class Routes:
    """The API over one service."""

    def __init__(
        self,
        settings: Settings,
        *,
        service: Service,
        routing: Router,
        catalogue: Catalogue,
        health: Health,
        metrics: Metrics,
        guard: Guard,
    ) -> None:
        self._settings = settings
        self._service = service
        self._routing = routing
        self._catalogue = catalogue
        self._health = health
        self._metrics = metrics

        self.router = router = APIRouter()
        predicts = guard.needs("predict")
        with_body = {"requestBody": request_body(settings.limits.max_images)}
        as_picture = {"content": dict.fromkeys(accept.PICTURES, accept.PICTURE_SCHEMA)}
        examples = {"application/json": {"examples": answers.PREDICT_EXAMPLES}}
        predicted = {"model": answers.PredictAnswer, "content": as_picture["content"] | examples}
        router.add_api_route(
            "/v1/models/{model}/predict",
            self.predict,
            methods=["POST"],
            responses=problems.answers(*_INFERENCE, *_RUNTIME) | {200: predicted},
            openapi_extra=with_body,
            route_class_override=predicts,
        )
        router.add_api_route(
            "/v1/models/{model}/compare",
            self.compare,
            methods=["POST"],
            responses=problems.answers(*_INFERENCE) | {200: {"model": answers.CompareAnswer, **as_picture}},
            openapi_extra=with_body,
            route_class_override=predicts,
        )
        router.add_api_route(
            "/v1/settings",
            self.effective_settings,
            responses=problems.answers(),
            route_class_override=guard.needs("admin"),
        )
        router.add_api_route("/livez", self.live, response_model=answers.LiveAnswer, responses=problems.answers())
        ready = {"model": answers.ReadyAnswer}
        router.add_api_route("/readyz", self.ready, responses=problems.answers() | {200: ready, 503: ready})
        for path, probe in (("/livez", self.live), ("/readyz", self.ready)):  # load balancers ask for the head alone
            router.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)
        in_text = {media: {"schema": {"type": "string"}} for media in ("text/plain", "application/openmetrics-text")}
        router.add_api_route(
            "/metrics",
            self.prometheus,
            response_class=Response,
            responses=problems.answers() | {200: {"content": in_text}},
            route_class_override=guard.needs("read"),
        )

    async def predict(
        self,
        request: Request,
        model: ModelParam,
        parameters: Annotated[PredictParameters, Query()],
        key: KeyHeader = None,
    ) -> Response:
        """Run the model on one or more pictures.

        With `Accept: image/png` or `image/jpeg` the answer is the picture with its predictions drawn: of one picture.
        """
        media = accept.choose(request.headers.getlist("accept"))
        context = context_of(request)
        context.facts["model"] = model
        runtime = None if parameters.runtime == "auto" else parameters.runtime
        plan = context.plan or self._routing.plan(model, runtime=runtime, version=parameters.version, key=key)
        question = self._question(request, plan.primary.spec, parameters, media, plan.policy)
        other = plan.other or plan.primary
        if context.plan is None:
            self._service.check(question, plan)
        with (
            self._catalogue.using(question.spec),
            self._catalogue.using(other.spec),
            self._service.uploads.begin() as upload,
        ):
            images = await self._receive(request, question, upload)
            with Presence(request):
                answer = await self._service.predict(question, plan, upload, context.clock)
                context.worker = answer.worker
                context.facts.update(version=answer.spec.version, runtime=answer.runtime, images=images)
                if answer.role != "primary":
                    context.facts["role"] = answer.role
                if answer.failed_over is not None:
                    context.facts["failover"] = f"{answer.failed_over.runtime}: {answer.failed_over.code}"
                drawing = partial(drawings.predict_drawing, answer, media)
                described = partial(answers.predict_answer, answer, context.request_id)
                response = await self._serialize(context, question, media, drawing, described)
        self._metrics.stage_seconds.labels(
            answer.spec.name, str(answer.spec.version), answer.runtime, answer.role, "serialize"
        ).observe(context.clock.seconds["serialize"], spans.exemplar())
        return response

    async def compare(
        self, request: Request, model: ModelParam, parameters: Annotated[CompareParameters, Query()]
    ) -> Response:
        """Run the model on both runtimes, or on other two targets, on the same tensors, and say whether they agree.

        With `Accept: image/png` or `image/jpeg` the answer is the picture twice, with each one's predictions.
        """
        media = accept.choose(request.headers.getlist("accept"))
        context = context_of(request)
        context.facts["model"] = model
        # Before the body: an unknown model needs no upload.
        first, second = self._routing.pair(model, parameters.targets, version=parameters.version)
        sides = dict(zip(parameters.targets.names, (first, second), strict=True))
        question = self._question(request, first.spec, parameters, media, "compare")
        self._service.check_comparison(question, sides)
        with (
            self._catalogue.using(first.spec),
            self._catalogue.using(second.spec),
            self._service.uploads.begin() as upload,
        ):
            images = await self._receive(request, question, upload)
            with Presence(request):
                comparison = await self._service.compare(question, sides, upload, context.clock, parameters.mode)
                context.facts.update(runtime="both", images=images)
                context.clock.lap("rpc")
                drawing = partial(drawings.compare_drawing, comparison, media)
                described = partial(answers.compare_answer, comparison, context.request_id)
                return await self._serialize(context, question, media, drawing, described)

    async def _serialize(
        self,
        context: RequestContext,
        question: Question,
        media: str,
        drawing: Callable[[], bytes],
        described: Callable[[], BaseModel],
    ) -> Response:
        """The answer, drawn if the caller wants a picture, else as JSON."""
        content: str | bytes
        if question.keep_originals:
            content = await self._service.threads.run(question.deadline, drawing)
        else:
            content = described().model_dump_json()
        response = Response(content, media_type=media)
        context.clock.lap("serialize")
        return response

    async def effective_settings(self) -> dict[str, Any]:
        """The settings this gateway runs with. Needs the admin key."""
        return self._settings.model_dump(mode="json")

    async def live(self) -> answers.LiveAnswer:
        """The process answers."""
        return answers.LiveAnswer()

    async def ready(self, request: Request) -> Response:
        """200 while at least one runtime can answer and the gateway is not stopping, else 503; the body says what each
        model is waiting for."""
        catalogue = self._catalogue
        answer = answers.ReadyAnswer(
            ready=self._health.ready and not request.app.state.draining,
            models={name: version_states(catalogue.find(name), self._health) for name in catalogue},
            wanted={
                name: version_states(catalogue.find(name, catalogue.wanted(name)), self._health)
                for name in catalogue
                if catalogue.wanted(name) != catalogue.default(name)
            },
        )
        return _json(answer, status=200 if answer.ready else 503)

    async def prometheus(self, request: Request) -> Response:
        """The gateway's metrics, for Prometheus: as OpenMetrics, with exemplars, to those who accept it."""
        try:
            encode, media = choose_encoder(request.headers.get("accept", ""))
        except TypeError:  # how the library takes a version that is no number
            encode, media = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        exposed = self._metrics.exposed
        # The files of all processes are read and added up, which takes a while.
        said = await asyncio.to_thread(encode, exposed) if self._metrics.shared else encode(exposed)
        return Response(said, media_type=media)

    def _question(
        self,
        request: Request,
        spec: ModelSpec,
        parameters: InferenceParameters,
        media: accept.MediaType,
        policy: str,
    ) -> Question:
        kept = media in accept.PICTURES
        return question_of(context_of(request), spec, parameters, policy, self._settings.limits, keep_originals=kept)

    async def _receive(self, request: Request, question: Question, upload: Upload) -> int:
        """Read the pictures into `upload`; how many they are."""
        await read_images(request, self._settings, question.deadline, upload)
        count = len(upload.images)
        if question.keep_originals and count > 1:
            raise NotAcceptable(
                f"A drawing is of one picture; this request has {count}. Send one at a time, or "
                "Accept: application/json."
            )
        context_of(request).clock.lap("receive")
        return count


def _json(answer: BaseModel, *, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")
