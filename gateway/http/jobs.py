"""The routes that add a model and repeat its proof: long work, started here and asked about later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from gateway.catalogue import Catalogue
from gateway.errors import BadRequest, Conflict, InvalidParameter, JobNotFound, ModelNotFound
from gateway.http import problems
from gateway.http.keys import Guard
from gateway.http.models import ModelParam
from gateway.job_files import Job
from gateway.jobs import Jobs
from modelkit.request import AddRequest, VerifyRequest, WholeNumber


class VerifyBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: WholeNumber | None = None
    """By default the default version."""
    samples: Path | None = None
    """A folder of pictures on the gateway's machine, besides the bundled photographs."""


class JobAnswer(BaseModel):
    id: str
    what: Literal["add", "verify"]
    model: str
    state: Literal["running", "done", "failed"]
    progress: list[str]
    """Lines, oldest first."""
    result: Any
    """Of an addition, the package's model.yaml; of a proof, the parity record."""
    error: str | None


class JobRoutes:
    """All of them need the admin key: sources are files of the gateway's machine, and a source may bring code along."""

    def __init__(self, jobs: Jobs, *, catalogue: Catalogue, guard: Guard) -> None:
        self._jobs = jobs
        self._catalogue = catalogue
        self.router = router = APIRouter(route_class=guard.needs("admin"))
        started = {"status_code": 202, "response_model": JobAnswer, "methods": ["POST"]}
        refused = (BadRequest, Conflict, InvalidParameter)
        router.add_api_route(
            "/v1/models",
            self.add,
            responses=problems.answers(*refused),
            **started,  # type: ignore[arg-type]
        )
        router.add_api_route(
            "/v1/models/{model}/verify",
            self.verify,
            responses=problems.answers(*refused, ModelNotFound),
            **started,  # type: ignore[arg-type]
        )
        router.add_api_route(
            "/v1/jobs/{job}",
            self.job,
            response_model=JobAnswer,
            responses=problems.answers(JobNotFound, InvalidParameter),
        )

    async def add(self, request: AddRequest, response: Response) -> JobAnswer:
        """Make a package of a source on the gateway's machine, prove it, and put it into service."""
        job = self._jobs.start("add", request.name, request.with_absolute_paths(Path.cwd()).model_dump(mode="json"))
        return _started(job, response)

    async def verify(
        self, model: ModelParam, response: Response, body: Annotated[VerifyBody, Body(default_factory=VerifyBody)]
    ) -> JobAnswer:
        """Repeat the proof of a version against the running workers."""
        spec = self._catalogue.find(model, body.version)
        request = VerifyRequest(name=model, version=spec.version, samples=body.samples)
        return _started(self._jobs.start("verify", model, request.model_dump(mode="json")), response)

    async def job(self, job: Annotated[str, PathParameter(description="The job's id.")]) -> JobAnswer:
        """How far a job is, and what it led to."""
        return _answer(self._jobs.find(job))


def _started(job: Job, response: Response) -> JobAnswer:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return _answer(job)


def _answer(job: Job) -> JobAnswer:
    return JobAnswer(
        id=job.id,
        what=job.what,
        model=job.model,
        state=job.state,
        progress=list(job.lines),
        result=job.result,
        error=job.error,
    )
