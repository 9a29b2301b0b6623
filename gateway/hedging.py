"""Hedging: a request that is late is sent to a second runtime, too, as far as a budget allows."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from gateway.errors import TandemError
from gateway.inference import Answer, FailedOver, Race
from gateway.latencies import Latencies
from gateway.metrics import HedgeOutcome, Metrics
from gateway.routing import Hedge
from gateway.runtimes.base import ModelRef
from modelkit.spec import RuntimeName

_LATE = 0.95
"""Share of a target's requests after whose time a further one is late."""
_BURST = 10.0


class Budget:
    """Each request adds its share of a token, a hedge takes a whole one: when all are late, few are hedged."""

    def __init__(self) -> None:
        self._tokens = 1.0

    def add(self, share: float) -> None:
        self._tokens = min(self._tokens + share, _BURST)

    def take(self) -> bool:
        """False, and nothing, where there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Hedges:
    def __init__(self, latencies: Latencies, metrics: Metrics) -> None:
        self._latencies = latencies
        self._metrics = metrics
        self._budgets: defaultdict[str, Budget] = defaultdict(Budget)

    def delay_s(self, hedge: Hedge, runtime: RuntimeName, model: ModelRef) -> float | None:
        """For how long a request that begins now waits for `runtime` alone. None: that is not known yet."""
        self._budgets[model.name].add(hedge.budget)
        if hedge.after_ms is not None:
            return hedge.after_ms / 1000
        return self._latencies.quantile_s(runtime, model, _LATE)

    def allows(self, runtime: RuntimeName, model: ModelRef, *, ready: bool, busy: bool) -> bool:
        """Whether a request that is late at `runtime` may be hedged: by the budget, and as the other one is."""
        if ready and not busy and self._budgets[model.name].take():
            return True
        self._metrics.hedges_refused.labels(runtime, "not_ready" if not ready else "busy" if busy else "budget").inc()
        return False

    async def race(
        self,
        runtimes: tuple[RuntimeName, RuntimeName],
        first: Awaitable[Answer],
        delay_s: float,
        second: Callable[[], Coroutine[Any, Any, Answer] | None],
        race: Race,
    ) -> Answer:
        """The first good answer; the other inference is cancelled. `second` gives it, where it may be, when the first
        is late. Raises what the last one raises, where none answers."""
        inferences = [asyncio.ensure_future(first)]
        try:
            await asyncio.wait(inferences, timeout=delay_s)
            if not inferences[0].done() and (hedge := second()) is not None:
                inferences.append(asyncio.create_task(hedge))
            ended = await _first_good(inferences)
            race.over = True
            if len(inferences) > 1:
                self._metrics.hedges.labels(*runtimes, _outcome(inferences[1], ended)).inc()
            answer = ended.result()
            if ended is not inferences[0] and inferences[0].done():
                return replace(answer, failed_over=FailedOver(runtimes[0], _code(inferences[0])))
            return answer
        finally:
            for each in inferences:
                each.cancel()
            await asyncio.gather(*inferences, return_exceptions=True)


async def _first_good(inferences: Sequence[asyncio.Future[Answer]]) -> asyncio.Future[Answer]:
    """The one that has answered; where all have failed, the one that did so last."""
    running = set(inferences)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        ended = [each for each in inferences if each in done]
        if good := [each for each in ended if each.exception() is None]:
            return good[0]
        if not running:
            return ended[-1]


def _outcome(hedge: asyncio.Future[Answer], ended: asyncio.Future[Answer]) -> HedgeOutcome:
    if hedge.done() and hedge.exception() is not None:
        return "failed"
    return "won" if ended is hedge else "lost"


def _code(failed: asyncio.Future[Answer]) -> str:
    error = failed.exception()
    return error.code if isinstance(error, TandemError) else "internal_error"
