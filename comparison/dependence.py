"""How much less a series tells because neighbouring requests are alike: its long-run variance.

The series is laid over cosine waves that are slow against its memory; the mean of their squared weights estimates the
long-run variance, and a statistic scaled by it has Student's t distribution with one degree of freedom a wave:
Müller, "HAC corrections for strongly autocorrelated time series", J. Bus. Econ. Stat. 32 (2014); Lazarus, Lewis, Stock,
Watson, "HAR inference: recommendations for practice", same journal 36 (2018), whose 0.41 n^(2/3) is the most taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special, stats

Floats = NDArray[np.float64]

MIN_WAVES: Final = 8
"""Below, the estimate of the variance is itself too uncertain."""
DRIFT_DEGREE: Final = 5
"""Of the polynomial that takes a slow drift of the traffic out, where the window's own quantiles are asked for."""
_MEMORY_PER_WAVE: Final = 4.0
"""Autocorrelation times to a wave: for a lag-1 process the slower waves then understate the variance by about 5 %."""
_WINDOW: Final = 3.0
"""Autocorrelation times over which correlations are summed; Sokal's c."""


@dataclass(frozen=True)
class Dependence:
    n: int
    variance: float
    """Of single values, drift included."""
    weights: Floats
    """Of the slow waves, by frequency: as many as there are degrees of freedom, and those that the drift took."""
    waves: int
    """Degrees of freedom."""

    @cached_property
    def long_run_variance(self) -> float:
        """n times the variance of the mean."""
        return float(self.weights @ self.weights) / self.waves if self.waves else float("nan")

    @property
    def effective_n(self) -> float:
        """Independent values that would tell as much. A series without slow waves, such as a constant one, or a short
        one that is its own mirror image, counts in full: it shows no dependence."""
        if not self.waves:
            return 0.0
        return self.n * self.variance / self.long_run_variance if self.long_run_variance > 0 else float(self.n)

    @property
    def block(self) -> int:
        """Length of the blocks, in requests, that count as independent: half the period of the fastest wave used."""
        return round(self.n / self.waves) if self.waves else self.n


def dependence(series: Floats, *, drift_degree: int = 0, memory: float = 1.0) -> Dependence:
    """Of a series in time order. A drift that is a polynomial of that degree is not counted as chance.

    `memory`: an autocorrelation time that is known to be reached, for what the series itself is too short to show.
    """
    n = len(series)
    variance = float(series.var()) if n else 0.0
    if n <= drift_degree + 1:
        return Dependence(n, variance, np.empty(0), 0)
    # A constant less its drift is rounding, whose memory means nothing.
    rest = _without_drift(series, drift_degree) if variance > 0 else np.zeros(n)
    time = max(memory, autocorrelation_time(rest))
    waves = int(min(n / (_MEMORY_PER_WAVE * time), 0.41 * n ** (2 / 3), n - 1 - drift_degree))
    weights: Floats = fft.dct(rest, norm="ortho")[1 : 1 + drift_degree + waves]
    return Dependence(n, variance, weights, waves)


def lag_one_time(values: Floats, *, drift_degree: int = 0) -> float:
    """Autocorrelation time of the first-order process with the correlation of neighbours that these values' ranks have.

    Only a floor: of other processes it may miss memory. But it is known well where a series is too short to see its
    memory run out, and there a sum of correlations is far too low. Ranks become normal scores: bursts do not dominate.
    """
    n = len(values)
    if n <= drift_degree + 1:
        return 1.0
    scores = _without_drift(special.ndtri((stats.rankdata(values) - 0.5) / n), drift_degree)
    power = float(scores @ scores)
    correlation = min(max(float(scores[1:] @ scores[:-1]) / power, 0.0), 1 - 1 / n) if power > 0 else 0.0
    return (1 + correlation) / (1 - correlation)


def long_run_correlation(x: Dependence, y: Dependence) -> float:
    """Of two series over the same requests, from the waves that both have; 0 where one is constant."""
    both = min(len(x.weights), len(y.weights))
    a, b = x.weights[:both], y.weights[:both]
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def autocorrelation_time(centred: Floats) -> float:
    """1 + 2 Σ correlation at each lag, over a window that grows with it; at least 1.

    Sokal, "Monte Carlo methods in statistical mechanics" (1997), section 3.
    """
    n = len(centred)
    size = fft.next_fast_len(2 * n, real=True)
    spectrum = fft.rfft(centred, size)
    covariance = fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[:n]
    if covariance[0] <= 0:
        return 1.0
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    wide_enough = np.arange(n) >= _WINDOW * times
    return max(1.0, float(times[np.argmax(wide_enough)] if wide_enough.any() else times[-1]))


def _without_drift(series: Floats, degree: int) -> Floats:
    rest: Floats = series - series.mean()
    if degree > 0:
        basis = _polynomials(len(series), degree)
        rest -= basis @ (basis.T @ rest)
    return rest


@lru_cache(maxsize=4)
def _polynomials(n: int, degree: int) -> Floats:
    basis: Floats = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, n), degree))[0]
    return basis
