"""One request through the stages, from the bytes of its pictures to predictions. No HTTP in here."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gateway import spans
from gateway.admission import Admission
from gateway.agreement import Agreement
from gateway.disagreements import Disagreements
from gateway.errors import TandemError, TooManyImages
from gateway.failover import Failovers
from gateway.health import Health
from gateway.images.decode import decode
from gateway.images.geometry import Geometry
from gateway.images.preprocess import fit
from gateway.inference import Answer, Inference, Picture, Question, Race, Role
from gateway.latencies import Latencies
from gateway.metrics import NO_RUNTIME, Metrics
from gateway.recording import Recorder, withheld
from gateway.router import Plan, Side
from gateway.runtimes.base import Runtime
from gateway.settings import Settings
from gateway.shadow import Shadows
from gateway.stages import StageClock
from gateway.threads import Threads
from modelkit.spec import ModelSpec, RuntimeName

Mode = Literal["parallel", "sequential"]


@dataclass(frozen=True)
class Comparison:
    spec: ModelSpec
    pictures: Sequence[Picture]
    answers: Mapping[str, Answer | TandemError]
    """By the names of the targets."""
    agreement: Agreement | None
    """None where one did not answer."""


class Service:
    def __init__(
        self,
        settings: Settings,
        *,
        runtimes: Mapping[RuntimeName, Runtime],
        shadows: Shadows,
        latencies: Latencies,
        disagreements: Disagreements,
        health: Health,
        metrics: Metrics,
        log: Recorder,
    ) -> None:
        self._limits = settings.limits
        self._shadows = shadows
        self._disagreements = disagreements
        self._metrics = metrics
        self._log = log
        self._admission = {
            name: Admission(
                f"the {name} runtime",
                max_inflight=limit.max_inflight,
                max_queue=limit.max_queue,
                inflight=metrics.inflight.labels(name),
                waiting=metrics.queue_depth.labels(name),
            )
            for name, limit in settings.runtimes.items()
        }
        self.threads = Threads(settings.limits.decode_threads or os.cpu_count() or 1, "pictures")
        """Where pictures are decoded."""
        self._inference = Inference(runtimes, latencies=latencies, health=health, metrics=metrics, threads=self.threads)
        self._failovers = Failovers(
            self._ask,
            busy=lambda runtime: self._admission[runtime].busy,
            health=health,
            latencies=latencies,
            metrics=metrics,
        )
        self._random = random.Random()  # noqa: S311  not for secrets

    async def predict(self, question: Question, plan: Plan, images: Sequence[bytes], clock: StageClock) -> Answer:
        """The answer of the plan's primary, or of who takes over from it, whatever becomes of its shadow.

        Raises TandemError."""
        pictures = await self._prepare(question, images, clock, role="primary")
        if plan.shadow is None:
            return await self._answer(question, plan, pictures, clock)
        paired = replace(question, origin=replace(question.origin, pair=self._pair()))
        said: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        control = plan.primary if plan.control else None
        self._shadows.offer(plan.shadow, paired, pictures, clock, said, control)
        if control is None:
            question = paired
        try:
            answer = await self._answer(question, plan, pictures, clock)
            if answer.role == "primary":
                said.set_result(replace(answer, pictures=()))  # nothing large waits for a slow shadow
        finally:
            said.cancel()  # where the primary has no answer, there is none to compare with
        return answer

    async def compare(
        self,
        question: Question,
        sides: Mapping[str, Side],
        images: Sequence[bytes],
        clock: StageClock,
        mode: Mode = "parallel",
    ) -> Comparison:
        """Two sides' answers about the same tensors. One failing does not hide the other's answer."""
        pictures = await self._prepare(question, images, clock, role="compare")
        # Whoever is called first may find the caches cold, or the cores free: that must not always be the same one.
        order = self._random.sample(list(sides), len(sides))
        pair, names = self._pair(), list(sides)

        with withheld(self._log) as row:

            async def ask(name: str) -> Answer | TandemError:
                side, number, own = sides[name], names.index(name), clock.fork()
                own.skip()  # one after the other, the first one's time is not the second one's
                origin = replace(question.origin, pair=pair, side=number, called=order.index(name))
                part, log = replace(question, spec=side.spec, origin=origin), row if number else self._log
                try:
                    return await self._ask(side.runtime, part, pictures, own, role="compare", log=log)
                except TandemError as error:
                    return error

            if mode == "parallel":
                asked = dict(zip(order, await asyncio.gather(*map(ask, order)), strict=True))
            else:
                asked = {name: await ask(name) for name in order}
            answers = {name: asked[name] for name in sides}
            both = [answer for answer in answers.values() if isinstance(answer, Answer)]
            if len(both) < 2:
                return Comparison(question.spec, pictures, answers, None)
            first, second = both
            compared = await self._inference.agreement(question, first.found, second.found, row=row)
        self._disagreements.offer(question, first, second, compared)
        return Comparison(question.spec, pictures, answers, compared.agreement)

    async def close(self) -> None:
        await self._shadows.close()
        self.threads.close()

    async def _answer(self, question: Question, plan: Plan, pictures: Sequence[Picture], clock: StageClock) -> Answer:
        if plan.other is None:
            return await self._ask(plan.primary.runtime, question, pictures, clock, role="primary")
        return await self._failovers.answer(plan, plan.other, question, pictures, clock)

    async def _ask(
        self,
        runtime: RuntimeName,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        *,
        role: Role,
        log: Recorder | None = None,
        race: Race | None = None,
        refusal: TandemError | None = None,
    ) -> Answer:
        """One attempt at one runtime, with its admission."""
        places = self._admission[runtime].places(len(pictures), question.deadline)
        return await self._inference.ask(
            runtime,
            question,
            pictures,
            clock,
            role=role,
            places=places,
            log=log or self._log,
            race=race,
            refusal=refusal,
        )

    def _pair(self) -> int:
        return self._random.getrandbits(63)

    async def _prepare(
        self, question: Question, images: Sequence[bytes], clock: StageClock, *, role: Role
    ) -> list[Picture]:
        spec, limits = question.spec, self._limits
        if len(images) > limits.max_images:
            raise TooManyImages(
                f"{len(images)} images in one request; at most {limits.max_images}. Send several requests."
            )
        pictures, preprocess_s = await self.threads.run(
            question.deadline, partial(_to_pictures, images, question, limits.max_pixels, self._disagreements.wanted)
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


def _to_pictures(
    images: Sequence[bytes], question: Question, max_pixels: int, keep_uploads: bool
) -> tuple[list[Picture], float]:
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
        kept = image if question.keep_originals else None
        pictures.append(Picture(geometry, tensor, kept, data if keep_uploads else None))
    return pictures, preprocess_s
