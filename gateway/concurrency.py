"""How many pictures may be at a runtime at once: as many as its workers make use of, by measured latency.

By Little's law the pace is the number in flight divided by how long each is held. Where more in flight are held for as
long as fewer are, more of them are answered; where they are held for longer in the same measure, they only wait in the
worker, where nobody can call them back. This is the gradient algorithm of Netflix's concurrency-limits, but for its
no-load latency, which is taken where all batches are full: below that, more in flight are slower and answered faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import Gauge

HEADROOM = 1.25
"""So many times what the pace needs: room to find that more are answered."""
PROBE_S = 10.0
"""How old a base may be: then the least are in flight for one window, and it is measured anew."""
_WINDOW_S = 0.5
_ROUNDS = 2
"""Times that each place is taken in a window, at least."""


class ConcurrencyLimit:
    def __init__(
        self,
        least: Callable[[], int],
        most: Callable[[], int],
        gauge: Gauge,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`least` and `most` may change with the workers that there are; where they are equal, so is the limit. The
        gauge shows it."""
        self._least = least
        self._most = most
        self._gauge = gauge
        self._clock = clock
        self._limit = float(most())  # until it is seen to be too many
        self._after_probe: float | None = None
        """Limit to come back to; None where no base is being measured."""
        self._base_s: float | None = None
        self._base_at_s = 0.0
        self._shown = -1
        self._begin()
        self.now()

    def now(self) -> int:
        """Pictures that may be there now, at least one."""
        limit = round(self._bounded())
        if limit != self._shown:
            self._gauge.set(limit)
            self._shown = limit
        return limit

    def learn(self, pictures: int, since_s: float) -> None:
        """So many, which were there since then, have left while others waited for their places."""
        if since_s < self._since_s or self._least() >= self._most():
            return
        now_s = self._clock()
        self._pictures += pictures
        self._held_s += pictures * (now_s - since_s)
        if self._pictures >= _ROUNDS * self.now() and now_s - self._since_s >= _WINDOW_S:
            self._adapt(self._held_s / self._pictures, now_s)
            self._begin()

    def _adapt(self, held_s: float, now_s: float) -> None:
        """`held_s`: the mean of a window in which the limit was reached all the time."""
        limit = self._bounded()
        if self.now() <= self._least():
            self._base_s, self._base_at_s = held_s, now_s
        if self._after_probe is not None:
            self._limit, self._after_probe = self._after_probe, None
        elif self._base_s is None or now_s - self._base_at_s > PROBE_S:
            self._after_probe, self._limit = limit, 0.0
        else:
            self._base_s = min(self._base_s, held_s)
            wanted = HEADROOM * limit * (self._base_s / held_s if held_s else 1.0)
            self._limit = (limit + wanted) / 2
            self._limit = self._bounded()

    def _bounded(self) -> float:
        return min(max(self._limit, self._least()), self._most())

    def _begin(self) -> None:
        """A window: of those that come from now on."""
        self._since_s = self._clock()
        self._pictures = 0
        self._held_s = 0.0
