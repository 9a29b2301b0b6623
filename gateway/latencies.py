"""How long each target takes, as this process has seen it lately."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.histogram import DecayedHistogram
from gateway.runtimes.base import ModelRef
from modelkit.spec import RuntimeName

_DECAY_S = 10.0
"""After so long an inference counts 1/e of what it counted at first."""
STALE_S = 60.0
"""After so long without an inference the estimate is none any more."""
CLAIM_S = 10.0
"""For so long one who was sent to measure a target may take; then another is sent."""


@dataclass
class _Seen:
    """Of one target: a decayed mean, and a histogram for quantiles."""

    seconds: float = 0.0
    weight: float = 0.0
    seen_s: float = -math.inf
    claimed_s: float = -math.inf
    histogram: DecayedHistogram = field(default_factory=DecayedHistogram)
    answered_s: float = -math.inf
    """When it answered last."""
    patient_s: float = -math.inf
    """When somebody was last sent to wait for it in patience."""

    def add(self, seconds: float, now_s: float) -> None:
        kept = math.exp((self.seen_s - now_s) / _DECAY_S)
        self.seconds = self.seconds * kept + seconds
        self.weight = self.weight * kept + 1
        self.seen_s = now_s


class Latencies:
    """What inferences took at each target: what is expected of it, and when it is late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._targets: dict[tuple[RuntimeName, ModelRef], _Seen] = {}

    def answered(self, runtime: RuntimeName, model: ModelRef, seconds: float) -> None:
        """`seconds`: of the stages that depend on the target."""
        seen, now_s = self._seen(runtime, model), self._clock()
        seen.add(seconds, now_s)
        seen.answered_s = now_s
        seen.histogram.answered(seconds)

    def failed(
        self, runtime: RuntimeName, model: ModelRef, patience_s: float, *, waited_s: float | None = None
    ) -> None:
        """It counts as `patience_s`, for which its answer would have been waited for, and never as less than is
        expected anyway: whoever fails at once, or is given up soon, is not fast. `waited_s`: where it did not fail but
        run out of its time, for how long it had not answered."""
        seen = self._seen(runtime, model)
        seen.add(max(patience_s, self.expected_s(runtime, model) or 0.0), self._clock())
        if waited_s is not None:
            seen.histogram.given_up(waited_s)

    def overtaken(self, runtime: RuntimeName, model: ModelRef, waited_s: float) -> None:
        """It was given up after `waited_s`, because another one had answered: it is at least so slow, which says
        something where that is slower than is expected."""
        expected_s = self.expected_s(runtime, model)
        if expected_s is not None and waited_s > expected_s:
            self._seen(runtime, model).add(waited_s, self._clock())
        self._seen(runtime, model).histogram.given_up(waited_s)

    def expected_s(self, runtime: RuntimeName, model: ModelRef) -> float | None:
        """None where it was not measured in the last minute."""
        seen = self._seen(runtime, model)
        return None if self._clock() - seen.seen_s > STALE_S else seen.seconds / seen.weight

    def due(self, runtime: RuntimeName, model: ModelRef) -> bool:
        """Whether it must be measured. True is said to one, who then has CLAIM_S to do it: while a target hangs, not
        everybody is to find that out."""
        seen, now_s = self._seen(runtime, model), self._clock()
        if now_s - seen.seen_s <= STALE_S or now_s - seen.claimed_s <= CLAIM_S:
            return False
        seen.claimed_s = now_s
        return True

    def quantile_s(self, runtime: RuntimeName, model: ModelRef, share: float) -> float | None:
        """Within which that share of its inferences is answered. None where too little is known."""
        return self._seen(runtime, model).histogram.quantile_s(share)

    def worth_patience(self, runtime: RuntimeName, model: ModelRef) -> bool:
        """Whether to wait for it longer than it used to take: it has not answered for so long that it may have become
        slower. True is said to one in CLAIM_S: while it hangs, not everybody is to find that out."""
        seen, now_s = self._seen(runtime, model), self._clock()
        if now_s - seen.answered_s <= STALE_S or now_s - seen.patient_s <= CLAIM_S:
            return False
        seen.patient_s = now_s
        return True

    def _seen(self, runtime: RuntimeName, model: ModelRef) -> _Seen:
        return self._targets.setdefault((runtime, model), _Seen())
