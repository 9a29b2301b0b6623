"""Which of several workers do worse than the others, and when they may be asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import structlog

from gateway.deadline import Deadline
from gateway.errors import RuntimeFault
from gateway.runtimes.base import ModelRef
from gateway.runtimes.pace import slow
from gateway.runtimes.replica import Replica

_log = structlog.get_logger(__name__)

AGAIN_S = 3.0
"""After so long, whoever was set aside is tried, with pictures of ours."""
TRIALS = 5
_TRIAL_MS = 2_000


class Outliers:
    """Sets aside, for one model, at most half of the workers that serve it: those that take several times what the
    others take, and those that fail on every picture while others do not. No user's request tries them again."""

    def __init__(
        self, start: Callable[[Coroutine[Any, Any, None]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`start` runs what takes time."""
        self._start = start
        self._clock = clock

    def judge(self, model: ModelRef, serving: Sequence[Replica], size: tuple[int, int]) -> None:
        """`serving`: all that have the model. `size`: height and width of its input."""
        for replica in serving:
            again_at_s = replica.set_aside.get(model)
            if again_at_s is not None and self._clock() >= again_at_s:
                replica.set_aside[model] = self._clock() + AGAIN_S
                self._start(self._try(replica, model, self._usual(replica, model, serving), size))
        able = [each for each in serving if model not in each.set_aside and each.allows(model)]
        room = len(serving) // 2 - (len(serving) - len(able))
        for replica in able:
            others = [each for each in able if each is not replica and model not in each.set_aside]
            if room <= 0 or not others:
                return
            usual, typical_s = self._usual(replica, model, serving), replica.paces[model].typical_s(self._clock())
            if replica.fails(model) and not all(each.fails(model) for each in others):
                replica.put_aside(model, "errors", self._clock() + AGAIN_S)
                room -= 1
            elif typical_s is not None and usual and slow(typical_s, usual):
                replica.put_aside(model, "slow", self._clock() + AGAIN_S)
                room -= 1

    def _usual(self, replica: Replica, model: ModelRef, serving: Sequence[Replica]) -> list[float]:
        """What the others take, as far as it is known."""
        others = [each for each in serving if each is not replica and model not in each.set_aside]
        known = (each.paces[model].typical_s(self._clock()) for each in others)
        return [each for each in known if each is not None]

    async def _try(self, replica: Replica, model: ModelRef, usual: Sequence[float], size: tuple[int, int]) -> None:
        black = np.zeros((1, *size, 3), dtype=np.uint8)
        begin_s = self._clock()
        try:
            for _ in range(TRIALS):
                await replica.ask(model, black, deadline=Deadline.after_ms(_TRIAL_MS))
        except RuntimeFault as error:
            _log.info("replica_still_aside", address=replica.address, model=str(model), reason=str(error))
            return
        if usual and slow((self._clock() - begin_s) / TRIALS, usual):
            _log.info("replica_still_aside", address=replica.address, model=str(model), reason="it is still slow")
            return
        replica.take_back(model)
        _log.info("replica_taken_back", address=replica.address, model=str(model))
