"""One request through the stages, from the bytes of its pictures to predictions. No HTTP in here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gateway.admission import Admission
from gateway.agreement import Agreement
from gateway.concurrency import ConcurrencyLimit
from gateway.disagreements import Disagreements
from gateway.errors import Overloaded, TandemError
from gateway.failover import Failovers
from gateway.health import Health
from gateway.inference import Answer, Inference, Picture, Question, Race, Role
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.preparation import Preparation
from gateway.recording import Recorder, withheld
from gateway.router import Plan, Side
from gateway.runtimes.base import Runtime
from gateway.settings import Settings
from gateway.shadow import Shadows
from gateway.stages import StageClock
from gateway.upload import Upload, Uploads
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
        self._shadows = shadows
        self._disagreements = disagreements
        self._log = log
        self._admission = {}
        for name, limit in settings.runtimes.items():
            least = settings.workers.least_inflight if limit.admission == "adaptive" else limit.max_inflight
            places = ConcurrencyLimit(
                partial(_places, settings, least, runtimes[name]),
                partial(_places, settings, limit.max_inflight, runtimes[name]),
                metrics.admission_limit.labels(name),
            )
            self._admission[name] = Admission(
                f"the {name} runtime",
                most=places.now,
                learn=places.learn,
                max_queue=limit.max_queue and settings.share(limit.max_queue),
                inflight=metrics.inflight.labels(name),
                waiting=metrics.queue_depth.labels(name),
            )
        self.uploads = Uploads(settings.share(settings.limits.max_inflight_bytes), metrics.inflight_bytes)
        self._preparation = Preparation(settings, keep_uploads=lambda: disagreements.wanted, metrics=metrics)
        self.threads = self._preparation.threads
        """Where pictures are decoded, and drawn."""
        self._inference = Inference(runtimes, latencies=latencies, health=health, metrics=metrics, threads=self.threads)
        self._failovers = Failovers(
            self._ask,
            busy=lambda runtime: self._admission[runtime].busy,
            health=health,
            latencies=latencies,
            metrics=metrics,
        )
        self._random = random.Random()  # noqa: S311  not for secrets

    @property
    def crowded(self) -> bool:
        """Whether a request that came now may have to wait, or be refused."""
        return self._preparation.busy or any(room.busy for room in self._admission.values())

    def check(self, question: Question, plan: Plan) -> None:
        """Refuse at once, before its body is read, what would be refused later. Raises Overloaded, DeadlineExceeded."""
        room, *_ = self._with_room(question, self._failovers.candidates(plan), 1, "primary")
        self._preparation.check(question, then_s=room.need_s(1))

    def check_comparison(self, question: Question, sides: Mapping[str, Side]) -> None:
        """As `check`."""
        rooms = self._with_room(question, list(sides.values()), 1, "compare")
        self._preparation.check(question, then_s=min(room.need_s(1) for room in rooms))

    async def predict(self, question: Question, plan: Plan, upload: Upload, clock: StageClock) -> Answer:
        """The answer of the plan's primary, or of who takes over from it, whatever becomes of its shadow.

        Raises TandemError."""
        room, *_ = self._with_room(question, self._failovers.candidates(plan), len(upload.images), "primary")
        with room.coming(len(upload.images)):
            then_s = room.need_s(0)
            pictures = await self._preparation.pictures(question, upload, clock, role="primary", then_s=then_s)
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
        upload: Upload,
        clock: StageClock,
        mode: Mode = "parallel",
    ) -> Comparison:
        """Two sides' answers about the same tensors. One failing does not hide the other's answer."""
        rooms = self._with_room(question, list(sides.values()), len(upload.images), "compare")
        with ExitStack() as coming:
            for room in set(rooms):
                coming.enter_context(room.coming(len(upload.images)))
            then_s = min(room.need_s(0) for room in rooms)
            pictures = await self._preparation.pictures(question, upload, clock, role="compare", then_s=then_s)
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
        self._preparation.close()

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

    def _with_room(self, question: Question, sides: Sequence[Side], pictures: int, role: Role) -> Sequence[Admission]:
        """Of those of `sides` that would not refuse so many pictures now. Raises what the first says, where all do."""
        found, refusals = [], []
        for side in sides:
            room = self._admission[side.runtime]
            try:
                room.check(pictures, question.deadline)
            except Overloaded as refusal:
                refusals.append((side, refusal))
            else:
                found.append(room)
        if found:
            return found
        for side, refused in refusals:
            self._inference.refused(side.runtime, replace(question, spec=side.spec), role=role, code=refused.code)
        raise refusals[0][1]


def _places(settings: Settings, of_each: int, runtime: Runtime) -> int:
    """Of this process, at all workers that `runtime` has now."""
    return settings.share(of_each * runtime.replicas)
