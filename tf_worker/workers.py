"""The threads that load and unload versions, as many as the real server's flags say."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Timer
from typing import Protocol

INITIAL_LOAD_THREADS = 4 * (os.cpu_count() or 1)
"""Versions loaded at once until the first ones are there: the real server's number, which no flag changes."""


class Workers(Protocol):
    def load(self, job: Callable[[], None]) -> None:
        """Do it in a thread for loads, after what is queued."""

    def unload(self, job: Callable[[], None]) -> None:
        """Do it in a thread for unloads, after what is queued."""

    def load_later(self, job: Callable[[], None]) -> None:
        """Like `load`, once the pause between two tries of a load is over."""

    def started(self) -> None:
        """The first versions are there: from now on fewer are loaded at once."""


class ThreadWorkers:
    """Threads of this process. 0 threads, the real server's default, are one here: no request ever waits for it."""

    def __init__(self, *, load_threads: int, unload_threads: int, retry_interval_s: float) -> None:
        self._load_threads = max(load_threads, 1)
        self._retry_interval_s = max(retry_interval_s, 0.0)
        self._loads = ThreadPoolExecutor(INITIAL_LOAD_THREADS, thread_name_prefix="load")
        self._swapping = Lock()
        self._unloads = ThreadPoolExecutor(max(unload_threads, 1), thread_name_prefix="unload")

    def load(self, job: Callable[[], None]) -> None:
        with self._swapping:
            self._loads.submit(job)

    def unload(self, job: Callable[[], None]) -> None:
        self._unloads.submit(job)

    def load_later(self, job: Callable[[], None]) -> None:
        timer = Timer(self._retry_interval_s, lambda: self.load(job))
        timer.daemon = True
        timer.start()

    def started(self) -> None:
        with self._swapping:
            initial, self._loads = self._loads, ThreadPoolExecutor(self._load_threads, thread_name_prefix="load")
        initial.shutdown(wait=False)  # what is queued there is still done
