"""The gateway's HTTP API, as the command line uses it."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]
Form = Mapping[str, tuple[str, bytes, str]]


class NotReachable(Exception):
    """No gateway answers at that address."""


class Refused(Exception):
    """The gateway answered with a problem."""

    def __init__(self, problem: Json) -> None:
        super().__init__(in_one_line(problem))
        self.problem = problem


def in_one_line(problem: Json) -> str:
    """A problem+json as a person reads it."""
    code = f" {problem['code']}" if "code" in problem else ""
    request = f" [request {problem['request_id']}]" if "request_id" in problem else ""
    return f"{problem['title']} ({problem['status']}{code}): {problem['detail']}{request}"


@dataclass(frozen=True)
class Question:
    """What is asked about each picture. None: left to the gateway."""

    runtime: str | None = None
    version: int | None = None
    top_k: int | None = None
    timeout_ms: int | None = None
    targets: str | None = None
    """Of compare: two, with a comma between them."""
    mode: str | None = None
    """Of compare: parallel or sequential."""

    @property
    def parameters(self) -> dict[str, str]:
        return {name: str(value) for name, value in vars(self).items() if value is not None}


class Client:
    """Every method raises NotReachable or Refused."""

    def __init__(self, url: str, admin_key: str | None = None) -> None:
        self._url = url
        headers = {"authorization": f"Bearer {admin_key}"} if admin_key else None
        # The gateway has the deadline. This limit is for one that accepts and never answers.
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(90, connect=5), headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def answers(self) -> bool:
        """Whether a gateway is there. Raises nothing."""
        try:
            return self._answer("GET", "/livez") == {"alive": True}
        except (NotReachable, Refused):
            return False

    def models(self) -> list[Json]:
        """The models the gateway serves, in short."""
        models: list[Json] = self._answer("GET", "/v1/models")["models"]
        return models

    def model(self, name: str) -> Json:
        """All that the gateway says of one model."""
        return self._answer("GET", f"/v1/models/{name}")

    def set_default(self, name: str, version: int) -> None:
        """Have `version` answer requests that name none. Needs the admin key."""
        self._answer("PUT", f"/v1/models/{name}/default", body={"version": version})

    def remove(self, name: str, version: int | None) -> list[str]:
        """Take a model or one of its versions away; the versions that are gone. Needs the admin key."""
        path = f"/v1/models/{name}" + ("" if version is None else f"/versions/{version}")
        return [str(each) for each in self._answer("DELETE", path)["removed"]]

    def scale(self, name: str, runtime: str, replicas: int) -> Json:
        """Have each worker of `runtime` compute so many batches of the model at once. Needs the admin key."""
        return self._answer("PUT", f"/v1/models/{name}/scale", body={"runtime": runtime, "replicas": replicas})

    def routing(self, name: str) -> Json:
        """The model's policy."""
        return self._answer("GET", f"/v1/models/{name}/routing")

    def set_routing(self, name: str, policy: Json) -> Json:
        """Put a policy in force; what is in force then. Needs the admin key."""
        return self._answer("PUT", f"/v1/models/{name}/routing", body=policy)

    def disagreements(self, model: str | None, limit: int) -> list[Json]:
        """What is kept, newest first. Needs the admin key."""
        params = {"limit": str(limit)} | ({} if model is None else {"model": model})
        found: list[Json] = self._answer("GET", "/v1/disagreements", params)["disagreements"]
        return found

    def draw_disagreement(self, number: int) -> bytes:
        """A PNG: its picture twice, with each answer. Needs the admin key."""
        return self._drawn("GET", f"/v1/disagreements/{number}")

    def comparison(self, parameters: Mapping[str, str]) -> Json:
        """What is known of two targets of a model."""
        return self._answer("GET", "/v1/comparison", parameters)

    def start(self, path: str, body: Json) -> Json:
        """Start a job. Needs the admin key."""
        return self._answer("POST", path, body=body)

    def job(self, job_id: str) -> Json:
        """How far a job is. Needs the admin key."""
        return self._answer("GET", f"/v1/jobs/{job_id}")

    def ask(self, what: str, model: str, image: Path, question: Question) -> Json:
        """`what`: predict or compare. Raises OSError if the picture cannot be read."""
        return self._answer("POST", f"/v1/models/{model}/{what}", question.parameters, _form(image))

    def draw(self, model: str, image: Path, question: Question) -> bytes:
        """A PNG: the picture with its predictions. Raises OSError if the picture cannot be read."""
        return self._drawn("POST", f"/v1/models/{model}/predict", question.parameters, _form(image))

    def _drawn(
        self, method: str, path: str, params: Mapping[str, str] | None = None, files: Form | None = None
    ) -> bytes:
        response = self._respond(method, path, params, files, headers={"Accept": "image/png"})
        if response.headers.get("content-type") == "image/png" and response.is_success:
            return response.content
        raise self._refused(response)

    def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        files: Form | None = None,
        body: Json | None = None,
    ) -> Json:
        response = self._respond(method, path, params, files, body=body)
        answer = _json(response)
        if answer is not None and response.is_success:
            return answer
        raise self._refused(response)

    def _respond(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        files: Form | None,
        headers: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, params=params, files=files, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotReachable(
                f"No gateway answers at {self._url} ({error or type(error).__name__}). Is the stack up? `make up`"
                " starts it; --url or TANDEM_URL names another."
            ) from error

    def _refused(self, response: httpx.Response) -> Refused:
        body = _json(response)
        if body is not None and body.keys() >= {"title", "status", "detail"}:
            return Refused(body)
        return Refused(
            {
                "title": "Not an answer of Tandem's gateway",
                "status": response.status_code,
                "detail": f"{self._url} answered {response.text[:200]!r}. Is that the right address?",
            }
        )


def _form(image: Path) -> Form:
    kind = mimetypes.guess_type(image)[0] or "application/octet-stream"
    return {"image": (image.name, image.read_bytes(), kind)}


def _json(response: httpx.Response) -> Json | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
