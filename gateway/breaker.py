"""A circuit breaker: what cannot be reached is left alone for a while, then tried with one request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from gateway.errors import DeadlineExceeded, RuntimeUnavailable

State = Literal["closed", "half_open", "open"]
STATES: tuple[State, ...] = ("closed", "half_open", "open")
"""From good to bad; the place in it is the value of `tandem_breaker_state`."""

FAILURES = 5
"""So many calls in a row that could not be answered open it."""
OPEN_S = 1.0
"""For how long it then lets nothing through."""


class Breaker:
    """Closed, it lets everything through. FAILURES in a row open it. After OPEN_S it is half open: it lets one call
    through, the probe, and what becomes of that one closes or opens it.

    Only RuntimeUnavailable is a failure. A call that was cancelled or ran out of its time says nothing about the
    worker, since the client chose how long to wait; every other answer shows that the worker is there.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, opened: Callable[[], None] = lambda: None) -> None:
        """`opened` is told when it opens after it was closed."""
        self._now = now
        self._opened = opened
        self._failures = 0
        self._open_until_s: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._open_until_s is None:
            return "closed"
        return "open" if self._now() < self._open_until_s else "half_open"

    @property
    def allows(self) -> bool:
        """Whether a call may begin now."""
        return self.state == "closed" or (self.state == "half_open" and not self._probing)

    def trip(self) -> bool:
        """It is known otherwise that the worker does not answer. Whether it was closed before."""
        before, self._open_until_s = self._open_until_s, self._now() + OPEN_S
        return before is None

    def reset(self) -> None:
        """It is known otherwise that the worker is there."""
        self._failures = 0
        self._open_until_s = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Watch over one call, the block. Ask `allows` right before."""
        probe = self.state == "half_open"
        self._probing |= probe
        try:
            yield
        except RuntimeUnavailable:
            self._failures += 1
            if (probe or self._failures >= FAILURES) and self.trip():
                self._opened()
            raise
        except (DeadlineExceeded, asyncio.CancelledError):
            raise
        except Exception:
            self.reset()
            raise
        else:
            self.reset()
        finally:
            if probe:
                self._probing = False
