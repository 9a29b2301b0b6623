"""Failover: where the first runtime fails, or takes too long, the other one is asked, once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, Overloaded, RuntimeFailed, RuntimeUnavailable, TandemError
from gateway.health import Health
from gateway.hedging import Hedges
from gateway.inference import Answer, FailedOver, Picture, Question, Race, Role
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.router import Plan, Side
from gateway.routing import Hedge
from gateway.runtimes.base import ModelRef
from gateway.stages import StageClock
from modelkit.spec import RuntimeName

LEAST_S = 1.0
"""For so long the first runtime may always take, as far as it is no more than half of the time there is."""
TIMES = 5.0
"""So many times as long as it takes for 95 % of its requests it may take."""
_USUAL = 0.95

_ANOTHER_MAY_MANAGE = (RuntimeUnavailable, RuntimeFailed, Overloaded, DeadlineExceeded)


class Ask(Protocol):
    """One attempt at one runtime, with its admission. Raises TandemError."""

    def __call__(
        self,
        runtime: RuntimeName,
        question: Question,
        pictures: Sequence[Picture],
        clock: StageClock,
        *,
        role: Role,
        race: Race | None = None,
        refusal: TandemError | None = None,
    ) -> Coroutine[Any, Any, Answer]: ...


@dataclass
class _Attempts:
    """At one request: one at the first runtime, and at most one at the other."""

    ask: Ask
    first: Side
    other: Side
    question: Question
    pictures: Sequence[Picture]
    clock: StageClock
    running: StageClock | None = None
    """That of the attempt that was begun last."""
    both: bool = False
    """Whether the other one was asked."""

    def at_first(
        self, deadline: Deadline, *, race: Race | None, refusal: TandemError | None
    ) -> Coroutine[Any, Any, Answer]:
        self.running = self.clock.fork()
        question = self.question.until(deadline)
        return self.ask(
            self.first.runtime, question, self.pictures, self.running, role="primary", race=race, refusal=refusal
        )

    def at_other(self, role: Role, race: Race | None = None) -> Coroutine[Any, Any, Answer]:
        self.both, self.running = True, self.clock.fork()
        self.running.skip()  # the first one's time, and the wait for it, are not the other one's
        origin = replace(self.question.origin, pair=None)  # what is compared is the first one's
        question = replace(self.question, spec=self.other.spec, origin=origin)
        return self.ask(self.other.runtime, question, self.pictures, self.running, role=role, race=race)


class Failovers:
    """Requests that two runtimes may answer, in two attempts at most."""

    def __init__(
        self,
        ask: Ask,
        *,
        busy: Callable[[RuntimeName], bool],
        health: Health,
        latencies: Latencies,
        metrics: Metrics,
    ) -> None:
        """`busy`: whether a request to that runtime would have to wait for a place."""
        self._ask = ask
        self._busy = busy
        self._health = health
        self._latencies = latencies
        self._hedges = Hedges(latencies, metrics)
        self._metrics = metrics

    def candidates(self, plan: Plan) -> Sequence[Side]:
        """Who may answer a request by `plan`, by what is known now, in the order of being asked. Never none."""
        if plan.other is None or not plan.failover or not self._able(plan.other):
            return [plan.primary]
        return [plan.primary, plan.other] if self._refusal(plan.primary) is None else [plan.other]

    async def answer(
        self, plan: Plan, other: Side, question: Question, pictures: Sequence[Picture], clock: StageClock
    ) -> Answer:
        """What the plan's primary says, or `other`. Raises TandemError: what the last one does.

        `clock` goes on from where the one that ended last has come to; what was before that one was asked is `queue`.
        """
        attempts = _Attempts(self._ask, plan.primary, other, question, pictures, clock)
        try:
            answer = await self._answer(plan, attempts)
        except TandemError:
            if attempts.running is not None:
                clock.join(attempts.running)
            raise
        clock.join(answer.clock)
        return replace(answer, clock=clock)

    async def _answer(self, plan: Plan, attempts: _Attempts) -> Answer:
        first, other, whole = attempts.first, attempts.other, attempts.question.deadline
        part, refusal = whole, None
        if plan.failover and self._able(other):
            part, refusal = self._part(first, whole), self._refusal(first)
        try:
            return await self._first(attempts, plan.hedge, part, refusal)
        except _ANOTHER_MAY_MANAGE as error:
            if not plan.failover or attempts.both or whole.now() >= whole.at_s:
                raise
            if not self._able(other):
                if part is whole or not isinstance(error, DeadlineExceeded):
                    raise
                raise DeadlineExceeded(
                    f"The {first.runtime} runtime did not answer in its part of the time, and the {other.runtime} "
                    "runtime is not ready to take over. Try again later."
                ) from error
            code = error.code
        self._metrics.failovers.labels(first.runtime, other.runtime).inc()
        answer = await attempts.at_other("failover")
        return replace(answer, failed_over=FailedOver(first.runtime, code))

    async def _first(
        self, attempts: _Attempts, hedge: Hedge | None, part: Deadline, refusal: TandemError | None
    ) -> Answer:
        """The first one's answer, or its hedge's."""
        first, other, model = attempts.first, attempts.other, ModelRef.of(attempts.first.spec)
        delay_s = None if hedge is None else self._hedges.delay_s(hedge, first.runtime, model)
        if delay_s is None:
            return await attempts.at_first(part, race=None, refusal=refusal)
        race = Race()

        def late() -> Coroutine[Any, Any, Answer] | None:
            able, busy = self._able(other), self._busy(other.runtime)
            allowed = self._hedges.allows(first.runtime, model, ready=able, busy=busy)
            return attempts.at_other("hedge", race) if allowed else None

        attempt = attempts.at_first(part, race=race, refusal=refusal)
        answer = await self._hedges.race((first.runtime, other.runtime), attempt, delay_s, late, race)
        if answer.failed_over is not None:
            self._metrics.failovers.labels(first.runtime, other.runtime).inc()
        return answer

    def _able(self, side: Side) -> bool:
        return self._health.able(side.runtime, ModelRef.of(side.spec))

    def _refusal(self, first: Side) -> TandemError | None:
        """Why `first` need not be asked, where it is known that it cannot answer and the other one can."""
        model = ModelRef.of(first.spec)
        if self._health.able(first.runtime, model):
            return None
        reason = self._health.status(first.runtime, model).reason or "Its workers could not answer several times."
        return RuntimeUnavailable(f"The {first.runtime} runtime is not ready for {model}. {reason} Try again later.")

    def _part(self, first: Side, whole: Deadline) -> Deadline:
        """Until when `first` may take, so that enough is left for the other one.

        One that hangs is left after several times what is usual. No request for which half of its time is too short is
        cut: its first runtime might have answered.
        """
        model, now_s = ModelRef.of(first.spec), whole.now()
        half_s = (whole.at_s - now_s) / 2
        usual_s = self._latencies.quantile_s(first.runtime, model, _USUAL)
        if half_s < (LEAST_S if usual_s is None else usual_s):
            return whole
        if usual_s is None or self._latencies.worth_patience(first.runtime, model):
            return Deadline(now_s + half_s, whole.now)
        return Deadline(now_s + min(half_s, max(LEAST_S, TIMES * usual_s)), whole.now)
