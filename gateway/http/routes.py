"""The routes of the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.errors import NotAcceptable
from gateway.health import Health
from gateway.http import answers
from gateway.http.bodies import REQUEST_BODY, read_images
from gateway.http.context import context_of
from gateway.http.keys import require_admin
from gateway.http.models import ModelParam, version_states
from gateway.http.parameters import InferenceParameters, PredictParameters
from gateway.http.problems import PROBLEMS
from gateway.metrics import Metrics
from gateway.service import Question, Service
from gateway.settings import Settings


class Routes:
    """The API over one service."""

    def __init__(
        self,
        settings: Settings,
        *,
        service: Service,
        catalogue: Catalogue,
        health: Health,
        metrics: Metrics,
        admin_key: str,
    ) -> None:
        self._settings = settings
        self._service = service
        self._catalogue = catalogue
        self._health = health
        self._metrics = metrics

        self.router = router = APIRouter(responses=PROBLEMS)
        with_body = {"requestBody": REQUEST_BODY}
        router.add_api_route(
            "/v1/models/{model}/predict",
            self.predict,
            methods=["POST"],
            responses={200: {"model": answers.PredictAnswer}},
            openapi_extra=with_body,
        )
        router.add_api_route(
            "/v1/models/{model}/compare",
            self.compare,
            methods=["POST"],
            responses={200: {"model": answers.CompareAnswer}},
            openapi_extra=with_body,
        )
        router.add_api_route("/v1/settings", self.effective_settings, dependencies=[Depends(require_admin(admin_key))])
        router.add_api_route("/livez", self.live, response_model=answers.LiveAnswer)
        router.add_api_route("/readyz", self.ready, responses={200: {"model": answers.ReadyAnswer}})
        for path, probe in (("/livez", self.live), ("/readyz", self.ready)):  # load balancers ask for the head alone
            router.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)
        router.add_api_route("/metrics", self.prometheus)

    async def predict(
        self, request: Request, model: ModelParam, parameters: Annotated[PredictParameters, Query()]
    ) -> Response:
        """Run the model on one or more pictures."""
        question = self._question(request, model, parameters)
        context = context_of(request)
        runtime = None if parameters.runtime == "auto" else parameters.runtime
        with self._catalogue.using(question.spec):
            images = await self._receive(request, question)
            answer = await self._service.predict(question, images, runtime, context.clock)
        context.facts.update(version=answer.spec.version, runtime=answer.runtime, images=len(images))
        return self._serialize(request, answers.predict_answer(answer, context.request_id))

    async def compare(
        self, request: Request, model: ModelParam, parameters: Annotated[InferenceParameters, Query()]
    ) -> Response:
        """Run the model on both runtimes, on the same tensors, and say whether they agree."""
        question = self._question(request, model, parameters)
        context = context_of(request)
        with self._catalogue.using(question.spec):
            images = await self._receive(request, question)
            comparison = await self._service.compare(question, images, context.clock)
        context.facts.update(version=comparison.spec.version, runtime="both", images=len(images))
        context.clock.lap("rpc")
        return self._serialize(request, answers.compare_answer(comparison, context.request_id))

    async def effective_settings(self) -> dict[str, Any]:
        """The settings this gateway runs with. Needs the admin key."""
        return self._settings.model_dump(mode="json")

    async def live(self) -> answers.LiveAnswer:
        """The process answers."""
        return answers.LiveAnswer()

    async def ready(self) -> Response:
        """200 while at least one runtime can answer, else 503; the body says what each model is waiting for."""
        catalogue = self._catalogue
        answer = answers.ReadyAnswer(
            ready=self._health.ready,
            models={name: version_states(catalogue.find(name), self._health) for name in catalogue},
            wanted={
                name: version_states(catalogue.find(name, catalogue.wanted(name)), self._health)
                for name in catalogue
                if catalogue.wanted(name) != catalogue.default(name)
            },
        )
        return _json(answer, status=200 if answer.ready else 503)

    async def prometheus(self) -> Response:
        """The gateway's metrics, for Prometheus."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def _question(self, request: Request, model: str, parameters: InferenceParameters) -> Question:
        context_of(request).facts["model"] = model
        _check_accept(request)
        spec = self._catalogue.find(model, parameters.version)  # before the body: an unknown model needs no upload
        limits = self._settings.limits
        timeout_ms = min(parameters.timeout_ms or limits.timeout_ms, limits.max_timeout_ms)
        return Question(spec, parameters.top_k, parameters.min_score, Deadline.after_ms(timeout_ms))

    async def _receive(self, request: Request, question: Question) -> list[bytes]:
        images = await read_images(request, self._settings, question.deadline)
        context_of(request).clock.lap("receive")
        return images

    def _serialize(self, request: Request, answer: answers.PredictAnswer | answers.CompareAnswer) -> Response:
        response = _json(answer)
        clock = context_of(request).clock
        clock.lap("serialize")
        if isinstance(answer, answers.PredictAnswer):
            self._metrics.stage_seconds.labels(
                answer.model, answer.version, answer.runtime, "primary", "serialize"
            ).observe(clock.seconds["serialize"])
        return response


def _json(answer: BaseModel, *, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


def _check_accept(request: Request) -> None:
    ranges = [each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "").split(",")]
    if not any(each in ("", "*/*", "application/*", "application/json") for each in ranges):
        raise NotAcceptable(
            f"This answer comes as application/json, not as {', '.join(ranges)}. Send Accept: application/json."
        )
