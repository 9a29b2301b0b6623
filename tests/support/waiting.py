"""Waiting for something that has no event to wait for: another process, a container, a scrape."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(
    wanted: Callable[[], Any], describe: Callable[[], object], *, patience_s: float = 300, pause_s: float = 0.5
) -> None:
    """Ask again and again until `wanted` holds. Raises TimeoutError with what `describe` says.

    The default patience is for a container to become healthy, and the like, on a busy machine.
    """
    until_s = time.monotonic() + patience_s
    while not wanted():
        if time.monotonic() > until_s:
            raise TimeoutError(f"Not after {patience_s} s: {describe()}")
        time.sleep(pause_s)
