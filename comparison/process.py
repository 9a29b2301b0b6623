"""Simulated latencies of two targets: the process on which the statistics are proven."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.signal import lfilter

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """Log-normal latencies with memory, bursts and a slow drift."""

    autocorrelation: float
    """Of the logarithm, from one request to the next, of the pair's common factor and of a target's own noise."""
    slowdown: float = 1.0
    """Factor on the latencies of a."""
    sigma: float = 0.25
    """Standard deviation of the logarithm of a target's latency, without bursts and drift."""
    common: float = 0.5
    """Share of that variance which both requests of a pair have in common."""
    burst_share: float = 0.01
    """Share of a target's requests within a burst; the bursts of the two targets have nothing to do with each other."""
    burst_length: int = 20
    burst_factor: tuple[float, float] = (3.0, 10.0)
    """A burst multiplies its requests by one factor, uniform between these."""
    drift: float = 0.2
    """Greatest factor, less one, of a sine wave over the whole run with a random phase; both targets share it."""
    typical_s: float = 0.015

    def draw(self, pairs: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Latencies in seconds of a and b, in time order."""
        shared = self._memory(pairs, rng) * self.sigma * np.sqrt(self.common) + self._drift(pairs, rng)
        own = self.sigma * np.sqrt(1 - self.common)
        log_a, log_b = (shared + self._memory(pairs, rng) * own + self._bursts(pairs, rng) for _ in range(2))
        return self.typical_s * self.slowdown * np.exp(log_a), self.typical_s * np.exp(log_b)

    def quantile(self, p: float) -> float:
        """Of a's latency in seconds, over all runs: all phases of the drift, in bursts and out of them."""
        phases = np.log1p(self.drift * np.sin(2 * np.pi * np.arange(256) / 256))
        factors = np.log(np.linspace(*self.burst_factor, 256))
        in_burst = 1 - (1 - self.burst_share / self.burst_length) ** self.burst_length

        def excess(log_latency: float) -> float:
            plain = stats.norm.cdf((log_latency - phases) / self.sigma).mean()
            burst = stats.norm.cdf((log_latency - phases[:, None] - factors) / self.sigma).mean()
            return float((1 - in_burst) * plain + in_burst * burst - p)

        return float(self.typical_s * self.slowdown * np.exp(optimize.brentq(excess, -5.0, 6.0)))

    def _memory(self, n: int, rng: np.random.Generator) -> Floats:
        shocks = rng.standard_normal(n)
        shocks[1:] *= np.sqrt(1 - self.autocorrelation**2)  # the first is drawn from the stationary distribution
        return np.asarray(lfilter([1.0], [1.0, -self.autocorrelation], shocks))

    def _drift(self, n: int, rng: np.random.Generator) -> Floats:
        phase = np.arange(n) / n + rng.random()
        return np.log1p(self.drift * np.sin(2 * np.pi * phase))

    def _bursts(self, n: int, rng: np.random.Generator) -> Floats:
        """Starts are a Poisson process that began before the run, so that its first requests may be within a burst."""
        before = self.burst_length
        starts = np.flatnonzero(rng.random(n + before) < self.burst_share / self.burst_length)
        log_factor = np.zeros(n + 2 * before)
        for start in starts:
            log_factor[start : start + before] = np.log(rng.uniform(*self.burst_factor))
        return log_factor[before : n + before]
