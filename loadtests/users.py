"""The kinds of user: who is asked, and what counts as an answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from locust import FastHttpUser, task
from locust.contrib.fasthttp import FastResponse

from loadtests.pictures import Picture

RUNTIMES = ("torch", "tf")


class Uploader(FastHttpUser):
    """Uploads one picture after the other, in a shuffled order of its own, and never waits between them.

    It keeps its connection, and sends nothing twice: an answer that asks to come again later is a failure.
    """

    abstract = True
    label: ClassVar[str]
    """Name of its row in locust's table."""
    path: ClassVar[str]
    row_by_runtime: ClassVar[bool] = False
    """Whether answers have rows of their own by the runtime that gave them: "auto predict (torch)"."""
    pictures: ClassVar[Sequence[Picture]] = ()

    def on_start(self) -> None:
        self._next: Iterator[Picture] = itertools.cycle(random.sample(self.pictures, k=len(self.pictures)))
        options = self.environment.parsed_options
        self._url = self.path.format(model=quote(options.model, safe=""))
        self._headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}

    @task
    def upload(self) -> None:
        picture = next(self._next)
        with self.client.post(
            self._url,
            name=self.label,
            data=picture.content,  # type: ignore[arg-type]  # locust's annotation forgets bytes
            headers={"Content-Type": picture.media_type, **self._headers},
            catch_response=True,
        ) as response:
            if response.status_code == 0:
                return  # no answer: locust counts the failure and says why
            answer = _json_object(response)
            if response.status_code != 200:
                response.failure(f"{response.status_code} {(answer or {}).get('code', 'without a code')}")
            elif answer is None:
                response.failure("200 without a JSON object")
            else:
                if self.row_by_runtime:
                    response.request_meta["name"] = f"{self.label} ({answer.get('runtime')})"
                if fault := self.fault(answer):
                    response.failure(fault)

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        """What is wrong with the answer, in a few words that repeat when the fault does."""
        raise NotImplementedError


class RuntimeUser(Uploader):
    """Asks one runtime and takes an answer from no other."""

    abstract = True
    weight = 4
    runtime: ClassVar[str]

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        if answer.get("runtime") != self.runtime:
            return f"asked {self.runtime}, answered by {answer.get('runtime')}"
        return _missing_prediction(answer)


class TorchUser(RuntimeUser):
    label = "torch predict"
    path = "/v1/models/{model}/predict?runtime=torch"
    runtime = "torch"


class TfUser(RuntimeUser):
    label = "tf predict"
    path = "/v1/models/{model}/predict?runtime=tf"
    runtime = "tf"


class CompareUser(Uploader):
    """Asks both runtimes at once."""

    weight = 1
    label = "compare"
    path = "/v1/models/{model}/compare"

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        for runtime in RUNTIMES:
            each = answer.get("runtimes", {}).get(runtime, {})
            if "error" in each:
                return f"{runtime}: {each['error'].get('code')}"
            if missing := _missing_prediction(each):
                return f"{runtime}: {missing}"
        return None


class AutoUser(Uploader):
    """Leaves the choice of the runtime to the model's policy. Its rows tell how that chose."""

    weight = 1
    label = "auto predict"
    path = "/v1/models/{model}/predict"
    row_by_runtime = True

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        return _missing_prediction(answer)


def runtime_of(row: str) -> str | None:
    """The runtime whose answers a row of locust's table counts; None for both at once, or for no answer."""
    return next((each for each in RUNTIMES if row.startswith(f"{each} ") or row.endswith(f"({each})")), None)


def _json_object(response: FastResponse) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except (ValueError, TypeError):  # TypeError: no body at all
        return None
    return answer if isinstance(answer, dict) else None


def _missing_prediction(answer: Mapping[str, Any]) -> str | None:
    results = answer.get("results")
    return None if results and all(each.get("predictions") for each in results) else "no prediction"
