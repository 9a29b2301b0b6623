"""One request through the stages, from the bytes of its pictures to predictions. No HTTP in here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.admission import Admission
from gateway.agreement import Agreement, compare_scores
from gateway.deadline import Deadline
from gateway.errors import TandemError, TooManyImages
from gateway.images.decode import decode
from gateway.images.preprocess import ImageTensor, preprocess
from gateway.metrics import NO_RUNTIME, Metrics
from gateway.runtimes.base import ModelRef, Runtime
from gateway.settings import Settings
from gateway.stages import StageClock
from gateway.tasks.classify import Classification, classify, scores_of
from modelkit.spec import ModelSpec, RuntimeName

Role = Literal["primary", "compare"]


@dataclass(frozen=True)
class Question:
    """What a request asks of a model, besides the pictures."""

    spec: ModelSpec
    top_k: int
    min_score: float
    deadline: Deadline


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    """Of the upright original, in pixels."""
    tensor: ImageTensor


@dataclass(frozen=True)
class Answer:
    """One runtime's answer; every list in the order of the pictures."""

    spec: ModelSpec
    runtime: RuntimeName
    pictures: Sequence[Picture]
    predictions: Sequence[list[Classification]]
    scores: Sequence[NDArray[np.float32]]
    clock: StageClock


@dataclass(frozen=True)
class Comparison:
    spec: ModelSpec
    answers: Mapping[RuntimeName, Answer | TandemError]
    agreement: Agreement | None
    """None where one runtime did not answer."""


class Service:
    def __init__(
        self,
        settings: Settings,
        *,
        runtimes: Mapping[RuntimeName, Runtime],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._runtimes = runtimes
        self._metrics = metrics
        self._admission = {
            name: Admission(name, max_inflight=limit.max_inflight, max_queue=limit.max_queue, metrics=metrics)
            for name, limit in settings.runtimes.items()
        }
        self._decoders = ThreadPoolExecutor(settings.limits.decode_threads or os.cpu_count(), "decode")

    async def predict(
        self, question: Question, images: Sequence[bytes], runtime: RuntimeName | None, clock: StageClock
    ) -> Answer:
        """The answer of `runtime`, by default the one that the model's policy names. Raises TandemError."""
        pictures = await self._prepare(question, images, clock, role="primary")
        name = runtime or self._settings.default_runtime
        return await self._ask(name, question, pictures, clock, role="primary")

    async def compare(self, question: Question, images: Sequence[bytes], clock: StageClock) -> Comparison:
        """Both runtimes' answers about the same tensors. One failing does not hide the other's answer."""
        pictures = await self._prepare(question, images, clock, role="compare")

        async def ask(name: RuntimeName) -> Answer | TandemError:
            try:
                return await self._ask(name, question, pictures, clock.fork(), role="compare")
            except TandemError as error:
                return error

        answers = dict(zip(self._runtimes, await asyncio.gather(*map(ask, self._runtimes)), strict=True))
        return Comparison(question.spec, answers, self._agreement(question.spec, list(answers.values())))

    def close(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _prepare(
        self, question: Question, images: Sequence[bytes], clock: StageClock, *, role: Role
    ) -> list[Picture]:
        spec, limits = question.spec, self._settings.limits
        if len(images) > limits.max_images:
            raise TooManyImages(
                f"{len(images)} images in one request; at most {limits.max_images}. Send several requests."
            )
        loop = asyncio.get_running_loop()
        async with question.deadline.guard():
            pictures, preprocess_s = await loop.run_in_executor(
                self._decoders, _to_pictures, images, spec, limits.max_pixels
            )
        # The wait for a free decoding thread counts as decoding.
        clock.lap("decode", of_it=("preprocess", preprocess_s))
        self._metrics.observe_stages(
            clock.seconds, model=spec.name, version=str(spec.version), runtime=NO_RUNTIME, role=role
        )
        return pictures

    async def _ask(
        self,
        runtime: RuntimeName,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        *,
        role: Role,
    ) -> Answer:
        spec, version = question.spec, str(question.spec.version)
        outcome = "internal_error"
        try:
            scores = await self._infer(runtime, spec, question.deadline, pictures, clock)
            predictions = [
                classify(each, spec.labels, top_k=question.top_k, min_score=question.min_score) for each in scores
            ]
            clock.lap("postprocess")
            outcome = "ok"
        except TandemError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"  # the client went away: nobody's failure
            raise
        finally:
            self._metrics.requests.labels(spec.name, version, runtime, role, outcome).inc()
        self._metrics.images.labels(spec.name, version, runtime).inc(len(pictures))
        self._metrics.observe_stages(clock.seconds, model=spec.name, version=version, runtime=runtime, role=role)
        self._metrics.request_seconds.labels(spec.name, version, runtime, role).observe(clock.elapsed_s())
        return Answer(spec, runtime, pictures, predictions, scores, clock)

    async def _infer(
        self,
        runtime: RuntimeName,
        spec: ModelSpec,
        deadline: Deadline,
        pictures: Sequence[Picture],
        clock: StageClock,
    ) -> list[NDArray[np.float32]]:
        ref = ModelRef.of(spec)
        async with self._admission[runtime].places(len(pictures), deadline):
            clock.lap("queue")
            # One call for each picture: the worker makes the batches.
            infer = self._runtimes[runtime].infer
            calls = [asyncio.ensure_future(infer(ref, each.tensor, deadline=deadline)) for each in pictures]
            try:
                results = await asyncio.gather(*calls)
            finally:
                for call in calls:
                    call.cancel()  # what still runs when one has failed, or when the client has gone
            clock.lap("rpc")
        return [scores_of(spec, tensors) for tensors in results]

    def _agreement(self, spec: ModelSpec, answers: Sequence[Answer | TandemError]) -> Agreement | None:
        scores = [answer.scores for answer in answers if isinstance(answer, Answer)]
        if len(scores) != 2:
            return None
        agreement, each = compare_scores(*scores)
        for same, difference in each:
            self._metrics.agreement.labels(spec.name, "agree" if same else "disagree").inc()
            self._metrics.score_difference.labels(spec.name).observe(difference)
        return agreement


def _to_pictures(images: Sequence[bytes], spec: ModelSpec, max_pixels: int) -> tuple[list[Picture], float]:
    """The pictures, and the seconds of it that were preprocessing.

    One picture after the other, so that no more than one of a request is in memory in full size.
    """
    pictures, preprocess_s = [], 0.0
    for data in images:
        image = decode(data, max_pixels=max_pixels)
        start_s = time.perf_counter()
        tensor = preprocess(image, spec.input)
        preprocess_s += time.perf_counter() - start_s
        pictures.append(Picture(image.width, image.height, tensor))
    return pictures, preprocess_s
