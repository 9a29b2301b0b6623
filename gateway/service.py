"""One request through the stages, from the bytes of its pictures to predictions. No HTTP in here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from PIL import Image

from gateway import spans
from gateway.admission import Admission
from gateway.agreement import Agreement
from gateway.deadline import Deadline
from gateway.errors import TandemError, TooManyImages
from gateway.images.decode import decode
from gateway.images.geometry import Geometry
from gateway.images.preprocess import ImageTensor, fit
from gateway.metrics import NO_RUNTIME, Metrics
from gateway.runtimes.base import ModelRef, Runtime, Tensors
from gateway.settings import Settings
from gateway.stages import StageClock
from gateway.tasks.base import Found, Limits
from gateway.tasks.table import TASKS
from modelkit.spec import ModelSpec, RuntimeName

Role = Literal["primary", "compare"]
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What a request asks of a model, besides the pictures."""

    spec: ModelSpec
    limits: Limits
    deadline: Deadline
    keep_originals: bool = False
    """Whether the answer holds the pictures themselves, to draw on."""


@dataclass(frozen=True)
class Picture:
    geometry: Geometry
    tensor: ImageTensor
    kept: Image.Image | None
    """The upright original, where the question asks for it."""

    @property
    def original(self) -> Image.Image:
        """Raises LookupError where it was not kept."""
        if self.kept is None:
            raise LookupError("the question asked for no originals")
        return self.kept


@dataclass(frozen=True)
class Answer:
    """One runtime's answer; every list in the order of the pictures."""

    spec: ModelSpec
    runtime: RuntimeName
    pictures: Sequence[Picture]
    found: Sequence[Found]
    clock: StageClock


@dataclass(frozen=True)
class Comparison:
    spec: ModelSpec
    pictures: Sequence[Picture]
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
        self._threads = ThreadPoolExecutor(settings.limits.decode_threads or os.cpu_count(), "pictures")

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
        agreement = await self._agreement(question, list(answers.values()))
        return Comparison(question.spec, pictures, answers, agreement)

    async def in_thread(self, deadline: Deadline, work: Callable[[], T]) -> T:
        """Do `work` off the event loop, where pictures are decoded. Raises DeadlineExceeded."""
        async with deadline.guard():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _prepare(
        self, question: Question, images: Sequence[bytes], clock: StageClock, *, role: Role
    ) -> list[Picture]:
        spec, limits = question.spec, self._settings.limits
        if len(images) > limits.max_images:
            raise TooManyImages(
                f"{len(images)} images in one request; at most {limits.max_images}. Send several requests."
            )
        pictures, preprocess_s = await self.in_thread(
            question.deadline, partial(_to_pictures, images, question, limits.max_pixels)
        )
        # The wait for a free decoding thread counts as decoding.
        clock.lap("decode", of_it=("preprocess", preprocess_s))
        self._metrics.observe_stages(
            clock.seconds,
            model=spec.name,
            version=str(spec.version),
            runtime=NO_RUNTIME,
            role=role,
            exemplar=spans.exemplar(),
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
        trace, inference = spans.trace.get(), None
        if trace is not None:
            inference = trace.inference(ModelRef.of(spec), runtime, role, images=len(pictures), clock=clock)
            spans.inference.set(inference)
        try:
            tensors = await self._infer(runtime, spec, question.deadline, pictures, clock)
            found = await self._postprocess(question, partial(_find, question, tensors, pictures))
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
            if inference is not None:
                inference.end(outcome)
        self._metrics.images.labels(spec.name, version, runtime).inc(len(pictures))
        exemplar = spans.exemplar()
        self._metrics.observe_stages(
            clock.seconds, model=spec.name, version=version, runtime=runtime, role=role, exemplar=exemplar
        )
        self._metrics.request_seconds.labels(spec.name, version, runtime, role).observe(clock.elapsed_s(), exemplar)
        return Answer(spec, runtime, pictures, found, clock)

    async def _infer(
        self,
        runtime: RuntimeName,
        spec: ModelSpec,
        deadline: Deadline,
        pictures: Sequence[Picture],
        clock: StageClock,
    ) -> list[Tensors]:
        ref = ModelRef.of(spec)
        async with self._admission[runtime].places(len(pictures), deadline):
            clock.lap("queue")
            if (inference := spans.inference.get()) is not None:
                inference.begin_rpc()
            # One call for each picture: the worker makes the batches.
            infer = self._runtimes[runtime].infer
            calls = [asyncio.ensure_future(infer(ref, each.tensor, deadline=deadline)) for each in pictures]
            try:
                results = await asyncio.gather(*calls)
            finally:
                for call in calls:
                    call.cancel()  # what still runs when one has failed, or when the client has gone
            clock.lap("rpc")
        return results

    async def _postprocess(self, question: Question, work: Callable[[], T]) -> T:
        """Do `work` where the model's task has it done. Raises DeadlineExceeded."""
        return await self.in_thread(question.deadline, work) if TASKS[question.spec.task].in_thread else work()

    async def _agreement(self, question: Question, answers: Sequence[Answer | TandemError]) -> Agreement | None:
        spec = question.spec
        found = [answer.found for answer in answers if isinstance(answer, Answer)]
        if len(found) != 2:
            return None
        agreement, pictures = await self._postprocess(question, partial(TASKS[spec.task].compare, *found))
        # Both at once: of a series that appears with its first count, Prometheus sees no increase.
        agree, disagree = (self._metrics.agreement.labels(spec.name, outcome) for outcome in ("agree", "disagree"))
        for same, difference in pictures:
            (agree if same else disagree).inc()
            self._metrics.score_difference.labels(spec.name).observe(difference)
        return agreement


def _to_pictures(images: Sequence[bytes], question: Question, max_pixels: int) -> tuple[list[Picture], float]:
    """The pictures, and the seconds of it that were preprocessing.

    One picture after the other, so that no more than one of a request is in memory in full size, but for those to keep.
    """
    spec, pictures, preprocess_s = question.spec.input, [], 0.0
    for data in images:
        image = decode(data, max_pixels=max_pixels)
        start_s = time.perf_counter()
        geometry = Geometry.of(image.size, spec)
        tensor = fit(image, spec, geometry)
        preprocess_s += time.perf_counter() - start_s
        pictures.append(Picture(geometry, tensor, image if question.keep_originals else None))
    return pictures, preprocess_s


def _find(question: Question, tensors: Sequence[Tensors], pictures: Sequence[Picture]) -> list[Found]:
    task = TASKS[question.spec.task]
    return [
        task.find(question.spec, each, picture.geometry, question.limits)
        for each, picture in zip(tensors, pictures, strict=True)
    ]
