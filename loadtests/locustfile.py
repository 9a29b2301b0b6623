"""Uploads pictures as fast as the answers come. One kind of user for each runtime: locust's table compares them.

locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --headless -u 8 -r 8 -t 20s
locust -f loadtests/locustfile.py --host … TorchUser TfUser        only these kinds of user
locust -f loadtests/locustfile.py --host … --class-picker          choose them in the web interface
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment

# locust imports this file by its path, from whatever folder it is started in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests.metrics import serve_metrics

SAMPLES = Path(__file__).resolve().parents[1] / "models" / "digits" / "samples"
MEDIA_TYPES = {
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}


class Picture(NamedTuple):
    content: bytes
    media_type: str


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: LocustArgumentParser, **_: Any) -> None:
    group = parser.add_argument_group("Tandem")
    group.add_argument("--model", env_var="TANDEM_LOAD_MODEL", default="digits", help="the model to ask")
    group.add_argument(
        "--images", env_var="TANDEM_LOAD_IMAGES", default=str(SAMPLES), help="folder of the pictures to upload"
    )


@events.init.add_listener  # type: ignore[untyped-decorator]
def add_metrics(environment: Environment, **_: Any) -> None:
    serve_metrics(environment)


@events.init.add_listener  # type: ignore[untyped-decorator]
def load_pictures(environment: Environment, **_: Any) -> None:
    if environment.parsed_options is None:
        return
    folder = Path(environment.parsed_options.images)
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in MEDIA_TYPES)
    if not files:
        sys.exit(f"no picture in {folder}: name a folder with {', '.join(MEDIA_TYPES)} files with --images")
    Uploader.pictures = [Picture(path.read_bytes(), MEDIA_TYPES[path.suffix.lower()]) for path in files]


class Uploader(FastHttpUser):
    """Uploads one picture after the other, in a shuffled order of its own, and never waits between them."""

    abstract = True
    label: ClassVar[str]
    """Name of its row in locust's table."""
    path: ClassVar[str]
    pictures: ClassVar[list[Picture]] = []

    def on_start(self) -> None:
        self._next: Iterator[Picture] = itertools.cycle(random.sample(self.pictures, k=len(self.pictures)))
        self._url = self.path.format(model=self.environment.parsed_options.model)

    @task
    def upload(self) -> None:
        picture = next(self._next)
        headers = {"Content-Type": picture.media_type}
        with self.client.post(
            self._url,
            name=self.label,
            data=picture.content,  # type: ignore[arg-type]  # locust's annotation forgets bytes
            headers=headers,
            catch_response=True,
        ) as response:
            if response.status_code == 0:
                return  # no answer: locust counts the failure and says why
            fault = _fault_of_response(response) or self.fault(response.json())
            if fault:
                response.failure(fault)

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        """What is wrong with the answer, in a few words that repeat when the fault does."""
        raise NotImplementedError


class AutoUser(Uploader):
    """Leaves the choice of the runtime to the model's policy."""

    weight = 1
    label = "auto predict"
    path = "/v1/models/{model}/predict"

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        return _missing_prediction(answer)


class CompareUser(Uploader):
    """Asks both runtimes at once."""

    weight = 1
    label = "compare"
    path = "/v1/models/{model}/compare"

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        for runtime in ("torch", "tf"):
            each = answer.get("runtimes", {}).get(runtime, {})
            if "error" in each:
                return f"{runtime}: {each['error'].get('code')}"
            if missing := _missing_prediction(each):
                return f"{runtime}: {missing}"
        return None


class OneRuntimeUser(Uploader):
    """Asks one runtime and takes an answer from no other."""

    abstract = True
    weight = 4
    runtime: ClassVar[str]

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        if answer.get("runtime") != self.runtime:
            return f"asked {self.runtime}, answered by {answer.get('runtime')}"
        return _missing_prediction(answer)


class TorchUser(OneRuntimeUser):
    label = "torch predict"
    path = "/v1/models/{model}/predict?runtime=torch"
    runtime = "torch"


class TfUser(OneRuntimeUser):
    label = "tf predict"
    path = "/v1/models/{model}/predict?runtime=tf"
    runtime = "tf"


def _fault_of_response(response: FastResponse) -> str | None:
    try:
        answer = response.json()
    except ValueError:
        return f"{response.status_code} without JSON"
    if not isinstance(answer, dict):
        return f"{response.status_code} with JSON that is not an object"
    if response.status_code != 200:
        return f"{response.status_code} {answer.get('code', 'without a code')}"
    return None


def _missing_prediction(answer: Mapping[str, Any]) -> str | None:
    results = answer.get("results")
    return None if results and all(each.get("predictions") for each in results) else "no prediction"
