"""How long each target takes, as this process has seen it lately."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.runtimes.base import ModelRef
from modelkit.spec import RuntimeName

_DECAY_S = 10.0
"""After so long an inference counts 1/e of what it counted at first."""
STALE_S = 60.0
"""After so long without an inference the estimate is none any more."""
CLAIM_S = 10.0
"""For so long one who was sent to measure a target may take; then another is sent."""


@dataclass
class _Mean:
    seconds: float = 0.0
    weight: float = 0.0
    seen_s: float = -math.inf
    claimed_s: float = -math.inf

    def add(self, seconds: float, now_s: float) -> None:
        kept = math.exp((self.seen_s - now_s) / _DECAY_S)
        self.seconds = self.seconds * kept + seconds
        self.weight = self.weight * kept + 1
        self.seen_s = now_s


class Latencies:
    """Decayed means of what inferences took at each target: expected latencies, for whoever chooses by speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._means: dict[tuple[RuntimeName, ModelRef], _Mean] = {}

    def answered(self, runtime: RuntimeName, model: ModelRef, seconds: float) -> None:
        """`seconds`: of the stages that depend on the target."""
        self._mean(runtime, model).add(seconds, self._clock())

    def failed(self, runtime: RuntimeName, model: ModelRef, patience_s: float) -> None:
        """It counts as `patience_s`, for which its answer would have been waited for, and never as less than is
        expected anyway: whoever fails at once, or is given up soon, is not fast."""
        self.answered(runtime, model, max(patience_s, self.expected_s(runtime, model) or 0.0))

    def expected_s(self, runtime: RuntimeName, model: ModelRef) -> float | None:
        """None where it was not measured in the last minute."""
        mean = self._mean(runtime, model)
        return None if self._clock() - mean.seen_s > STALE_S else mean.seconds / mean.weight

    def due(self, runtime: RuntimeName, model: ModelRef) -> bool:
        """Whether it must be measured. True is said to one, who then has CLAIM_S to do it: while a target hangs, not
        everybody is to find that out."""
        mean, now_s = self._mean(runtime, model), self._clock()
        if now_s - mean.seen_s <= STALE_S or now_s - mean.claimed_s <= CLAIM_S:
            return False
        mean.claimed_s = now_s
        return True

    def _mean(self, runtime: RuntimeName, model: ModelRef) -> _Mean:
        return self._means.setdefault((runtime, model), _Mean())
