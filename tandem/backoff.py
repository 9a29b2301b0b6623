"""How long to wait before a process that ended is started again."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Exponential: `first_s`, twice that, … up to `longest_s`, and from the beginning after a run of `steady_s`."""

    first_s: float = 0.5
    longest_s: float = 30.0
    steady_s: float = 60.0
    _failures: int = field(default=0, init=False)

    def after(self, ran_s: float) -> float:
        """The pause, in seconds, after a run that lasted `ran_s` seconds."""
        self._failures = 1 if ran_s >= self.steady_s else self._failures + 1
        # The exponent is bounded: a process that fails for weeks must not overflow a float.
        return min(self.first_s * 2.0 ** min(self._failures - 1, 30), self.longest_s)
