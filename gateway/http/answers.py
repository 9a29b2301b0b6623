"""The JSON of successful answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.agreement import BoxAgreement, ClassAgreement, MaskAgreement
from gateway.http.model_answers import VersionState
from gateway.http.problems import Problem, problem_of
from gateway.inference import Answer
from gateway.service import Comparison
from gateway.tasks.classify import Classification
from gateway.tasks.detect import Detection
from gateway.tasks.segment import Segmentation
from gateway.worker_times import UNKNOWN, WorkerTimes
from modelkit.spec import RuntimeName


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, serialize_by_alias=True)


class ImageSize(_Answer):
    width: int
    height: int


class Result(_Answer):
    """What was found in one picture."""

    image: ImageSize
    """Of the upright original, in pixels."""
    predictions: list[Segmentation] | list[Detection] | list[Classification]
    """As the model's task is, best first."""


def _unknown(value: object) -> bool:
    return value is None


class Worker(_Answer):
    """What the worker says of its part of `rpc`; of several pictures the longest of each."""

    queue_ms: float | None = Field(default=None, exclude_if=_unknown)
    """How long the picture waited before its batch was computed. Torch's counts from when the gateway sent it."""
    inference_ms: float | None = Field(default=None, exclude_if=_unknown)
    """How long its batch was computed."""
    batch_size: int | None = Field(default=None, exclude_if=_unknown)
    """Pictures in the batch."""


class FailedOver(_Answer):
    """Another runtime was asked first, and failed."""

    from_: RuntimeName = Field(alias="from")
    code: str
    """Of its error."""


class PredictAnswer(_Answer):
    request_id: str
    model: str
    version: str
    runtime: RuntimeName
    results: list[Result]
    """In the order of the pictures."""
    timing_ms: dict[str, float]
    """Milliseconds of each stage, and their `total`."""
    worker: Worker | None = Field(default=None, exclude_if=_unknown)
    """Absent where the worker says nothing of its part."""
    failover: FailedOver | None = Field(default=None, exclude_if=_unknown)
    """Absent where the runtime that was asked first has answered."""


_PREDICTED = {
    "request_id": "0e5c8a2f",
    "model": "digits",
    "version": "1",
    "runtime": "torch",
    "results": [
        {"image": {"width": 256, "height": 256}, "predictions": [{"class_id": 7, "label": "7", "score": 0.994215}]}
    ],
    "timing_ms": {
        "receive": 0.7,
        "decode": 1.1,
        "preprocess": 0.3,
        "queue": 0,
        "rpc": 4.1,
        "postprocess": 0.1,
        "total": 6.3,
    },
    "worker": {"queue_ms": 1.2, "inference_ms": 1.6, "batch_size": 1},
}
_BOX = {"x1": 12.5, "y1": 40.0, "x2": 320.25, "y2": 239.88}
PREDICT_EXAMPLES = {
    "classes": {"value": _PREDICTED},
    "boxes": {
        "value": _PREDICTED
        | {
            "model": "shapes",
            "results": [
                {
                    "image": {"width": 640, "height": 480},
                    "predictions": [{"class_id": 2, "label": "car", "score": 0.871923, "box": _BOX}],
                }
            ],
        }
    },
    "failover": {
        "summary": "tf answered, because torch could not",
        "value": {name: part for name, part in _PREDICTED.items() if name != "worker"}
        | {"runtime": "tf", "failover": {"from": "torch", "code": "runtime_unavailable"}},
    },
}
"""For the description of the API."""


class RuntimeAnswer(_Answer):
    """One target's part of a comparison."""

    runtime: RuntimeName
    version: str
    results: list[Result]
    timing_ms: dict[str, float]
    worker: Worker | None = Field(default=None, exclude_if=_unknown)
    """Absent where the worker says nothing of its part."""


class FailedRuntime(_Answer):
    error: Problem


class CompareAnswer(_Answer):
    request_id: str
    model: str
    runtimes: dict[str, RuntimeAnswer | FailedRuntime]
    """By target: `torch` and `tf`, or what the request names; named twice, `torch` and `torch again`."""
    agreement: MaskAgreement | BoxAgreement | ClassAgreement | None
    """As the model's task is; None where one did not answer."""


class ReadyAnswer(_Answer):
    ready: bool
    models: dict[str, dict[RuntimeName, VersionState]]
    """By model and runtime, the state of the version that answers by default."""
    wanted: dict[str, dict[RuntimeName, VersionState]]
    """The same, where the default is to move, for the version that it moves to once both runtimes are ready."""


class LiveAnswer(_Answer):
    alive: Literal[True] = True


def predict_answer(answer: Answer, request_id: str) -> PredictAnswer:
    return PredictAnswer(
        request_id=request_id,
        model=answer.spec.name,
        version=str(answer.spec.version),
        runtime=answer.runtime,
        results=_results(answer),
        timing_ms=answer.clock.timing_ms(),
        worker=_worker(answer.worker),
        failover=None
        if answer.failed_over is None
        else FailedOver.model_validate({"from": answer.failed_over.runtime, "code": answer.failed_over.code}),
    )


def compare_answer(comparison: Comparison, request_id: str) -> CompareAnswer:
    return CompareAnswer(
        request_id=request_id,
        model=comparison.spec.name,
        runtimes={
            name: RuntimeAnswer(
                runtime=answer.runtime,
                version=str(answer.spec.version),
                results=_results(answer),
                timing_ms=answer.clock.timing_ms(),
                worker=_worker(answer.worker),
            )
            if isinstance(answer, Answer)
            else FailedRuntime(error=problem_of(answer, request_id))
            for name, answer in comparison.answers.items()
        },
        agreement=comparison.agreement,
    )


def _worker(said: WorkerTimes) -> Worker | None:
    if said == UNKNOWN:
        return None
    ms = said.ms()
    return Worker(queue_ms=ms.get("queue"), inference_ms=ms.get("inference"), batch_size=said.batch)


def _results(answer: Answer) -> list[Result]:
    return [
        Result(
            image=ImageSize(width=picture.geometry.width, height=picture.geometry.height), predictions=found.predictions
        )
        for picture, found in zip(answer.pictures, answer.found, strict=True)
    ]
