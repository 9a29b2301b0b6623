"""One runtime asked about pictures, and two answers about the same ones compared; both are measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from PIL import Image

from gateway import spans
from gateway.agreement import Compared
from gateway.deadline import Deadline
from gateway.errors import TandemError
from gateway.health import Health
from gateway.images.geometry import Geometry
from gateway.images.preprocess import ImageTensor
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.recording import Recorder, Withheld
from gateway.request_log import OVERTAKEN, Origin, Row
from gateway.runtimes.base import ModelRef, Output, Runtime
from gateway.stages import BEFORE_ROUTING, Stage, StageClock
from gateway.tasks.base import Found, Limits
from gateway.tasks.table import TASKS
from gateway.threads import Threads
from gateway.worker_times import UNKNOWN, WorkerTimes
from modelkit.spec import ModelSpec, RuntimeName

Role = Literal["primary", "compare", "shadow", "failover", "hedge"]
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What a request asks of a model, besides the pictures."""

    spec: ModelSpec
    limits: Limits
    deadline: Deadline
    origin: Origin
    keep_originals: bool = False
    """Whether the answer holds the pictures themselves, to draw on."""

    def until(self, deadline: Deadline) -> Question:
        """The same, with another deadline."""
        return replace(self, deadline=deadline, limits=replace(self.limits, deadline=deadline))


@dataclass(frozen=True)
class Picture:
    geometry: Geometry
    tensor: ImageTensor
    kept: Image.Image | None
    """The upright original, where the question asks for it."""
    data: bytes | None
    """The picture's file, where disagreements are kept."""

    @property
    def original(self) -> Image.Image:
        """Raises LookupError where it was not kept."""
        if self.kept is None:
            raise LookupError("the question asked for no originals")
        return self.kept

    @property
    def upload(self) -> bytes:
        """The picture's file, as it came. Raises LookupError where it was not kept."""
        if self.data is None:
            raise LookupError("uploads are only kept where disagreements are")
        return self.data


@dataclass(frozen=True)
class FailedOver:
    """Who had failed before another one answered."""

    runtime: RuntimeName
    code: str
    """Of its error."""


@dataclass
class Race:
    """Two inferences of one request, of which the first good answer is taken."""

    over: bool = False
    """Whether one has answered: what is cancelled now was overtaken."""


@dataclass(frozen=True)
class Answer:
    """One runtime's answer; every list in the order of the pictures."""

    spec: ModelSpec
    runtime: RuntimeName
    pictures: Sequence[Picture]
    found: Sequence[Found]
    clock: StageClock
    worker: WorkerTimes = UNKNOWN
    role: Role = "primary"
    """In which the runtime was asked."""
    failed_over: FailedOver | None = None


class Inference:
    def __init__(
        self,
        runtimes: Mapping[RuntimeName, Runtime],
        *,
        latencies: Latencies,
        health: Health,
        metrics: Metrics,
        threads: Threads,
    ) -> None:
        """`threads`: for what a task makes of tensors, where that is long work."""
        self._runtimes = runtimes
        self._latencies = latencies
        self._health = health
        self._metrics = metrics
        self._threads = threads

    async def ask(
        self,
        runtime: RuntimeName,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        *,
        role: Role,
        places: AbstractAsyncContextManager[object],
        log: Recorder,
        race: Race | None = None,
        refusal: TandemError | None = None,
    ) -> Answer:
        """What `runtime` says, once there are `places` for the pictures. Raises TandemError.

        However it ends, `log` gets its row. `race`: that it is one of. `refusal`: raised instead of asking it, and
        counted as if it had said so.
        """
        spec, version = question.spec, str(question.spec.version)
        patience_s = max(0.0, question.deadline.at_s - question.deadline.now())
        cold = self._health.cold(runtime, ModelRef.of(spec))
        outcome, worker = "internal_error", UNKNOWN
        trace, inference = spans.trace.get(), None
        if trace is not None:
            inference = trace.inference(ModelRef.of(spec), runtime, role, images=len(pictures), clock=clock)
            spans.inference.set(inference)
        try:
            if refusal is not None:
                raise refusal
            async with places:
                clock.lap("queue")
                outputs = await self._infer(runtime, question, pictures)
                clock.lap("rpc")
            worker = WorkerTimes.of(outputs)
            found = await self._postprocess(question, partial(_find, question, outputs, pictures))
            clock.lap("postprocess")
            outcome = "ok"
        except TandemError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"  # the client went away, or another one has answered: nobody's failure
            raise
        finally:
            self._metrics.requests.labels(spec.name, version, runtime, role, outcome).inc()
            seconds = dict(clock.seconds) if outcome == "ok" else clock.seconds_so_far()
            # The log tells the two apart: who was overtaken is known to be at least so slow.
            logged = OVERTAKEN if outcome == "cancelled" and race is not None and race.over else outcome
            self._learn(runtime, ModelRef.of(spec), logged, seconds, patience_s)
            row = row_of(
                question, runtime, role, logged, images=len(pictures), seconds=seconds, cold=cold, worker=worker
            )
            log.record(row)
            if inference is not None:
                inference.end(outcome, worker)
        self._health.answered(runtime, ModelRef.of(spec))
        self._metrics.images.labels(spec.name, version, runtime).inc(len(pictures))
        exemplar = spans.exemplar()
        self._metrics.observe_stages(
            clock.seconds, model=spec.name, version=version, runtime=runtime, role=role, exemplar=exemplar
        )
        self._metrics.request_seconds.labels(spec.name, version, runtime, role).observe(clock.elapsed_s(), exemplar)
        for each in outputs:
            self._metrics.observe_worker(each, model=spec.name, version=version, runtime=runtime, role=role)
        return Answer(spec, runtime, pictures, found, clock, worker, role)

    def refused(self, runtime: RuntimeName, question: Question, *, role: Role, code: str) -> None:
        """Count a request that `runtime` is not asked, since it has no room: before anything was done for it."""
        spec = question.spec
        self._metrics.requests.labels(spec.name, str(spec.version), runtime, role, code).inc()
        patience_s = max(0.0, question.deadline.at_s - question.deadline.now())
        self._latencies.failed(runtime, ModelRef.of(spec), patience_s)

    async def agreement(
        self, question: Question, first: Sequence[Found], second: Sequence[Found], *, row: Withheld
    ) -> Compared:
        """Whether two answers say the same, counted, and kept in `row`, the second one's. Raises DeadlineExceeded."""
        spec = question.spec
        compare = partial(TASKS[spec.task].compare, first, second, spec.agreement)
        compared = await self._postprocess(question, compare)
        # Both at once: of a series that appears with its first count, Prometheus sees no increase.
        agree, disagree = (self._metrics.agreement.labels(spec.name, outcome) for outcome in ("agree", "disagree"))
        for same, difference in compared.pictures:
            (agree if same else disagree).inc()
            self._metrics.score_difference.labels(spec.name).observe(difference)
        row.compared(compared.pictures)
        return compared

    def _learn(
        self, runtime: RuntimeName, model: ModelRef, outcome: str, seconds: Mapping[Stage, float], patience_s: float
    ) -> None:
        own_s = sum(each for stage, each in seconds.items() if stage not in BEFORE_ROUTING)
        match outcome:
            case "ok":
                self._latencies.answered(runtime, model, own_s)
            case "overtaken":
                self._latencies.overtaken(runtime, model, own_s)
            case "deadline_exceeded":
                self._latencies.failed(runtime, model, patience_s, waited_s=own_s)
            case "cancelled":
                pass
            case _:
                self._latencies.failed(runtime, model, patience_s)

    async def _infer(self, runtime: RuntimeName, question: Question, pictures: Sequence[Picture]) -> list[Output]:
        if (inference := spans.inference.get()) is not None:
            inference.begin_rpc()
        # One call for each picture: the worker makes the batches.
        infer, model = self._runtimes[runtime].infer, ModelRef.of(question.spec)
        if len(pictures) == 1:
            return [await infer(model, pictures[0].tensor, deadline=question.deadline)]
        calls = [asyncio.ensure_future(infer(model, each.tensor, deadline=question.deadline)) for each in pictures]
        try:
            return await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()  # what still runs when one has failed, or when the client has gone

    async def _postprocess(self, question: Question, work: Callable[[], T]) -> T:
        """Do `work` where the model's task has it done. Raises DeadlineExceeded."""
        if TASKS[question.spec.task].in_thread:
            return await self._threads.run(question.deadline, work)
        return work()


def row_of(
    question: Question,
    runtime: RuntimeName,
    role: Role,
    outcome: str,
    *,
    images: int,
    seconds: Mapping[Stage, float],
    cold: bool,
    worker: WorkerTimes = UNKNOWN,
) -> Row:
    return Row(
        origin=question.origin,
        model=question.spec.name,
        version=question.spec.version,
        runtime=runtime,
        role=role,
        cold=cold,
        outcome=outcome,
        images=images,
        seconds=seconds,
        worker=worker,
    )


def _find(question: Question, outputs: Sequence[Output], pictures: Sequence[Picture]) -> list[Found]:
    task = TASKS[question.spec.task]
    return [
        task.find(question.spec, each.tensors, picture.geometry, question.limits)
        for each, picture in zip(outputs, pictures, strict=True)
    ]
