"""Ways to find out what is still running."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

VARIABLE = "TANDEM_TEST_RUN"


@dataclass(frozen=True)
class Traces:
    """Finds the processes that a test started, directly or not: they have its mark in their environment."""

    mark: str

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, VARIABLE: self.mark}

    def alive(self) -> list[psutil.Process]:
        """Those that are there now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(VARIABLE) == self.mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def await_count(self, count: int, give_up_s: float = 30.0) -> None:
        """Until that many are there: what was started starts others. Fails when it takes too long."""
        until = time.monotonic() + give_up_s
        while len(alive := self.alive()) != count:
            assert time.monotonic() < until, alive
            time.sleep(0.01)

    def left(self, within_s: float = 0.0) -> list[psutil.Process]:
        """Those that are still there after at most that time."""
        _, alive = psutil.wait_procs(self.alive(), within_s)
        return [*alive, *(process for process in self.alive() if process not in alive)]


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces(uuid.uuid4().hex)
    yield traces
    for process in traces.alive():
        process.kill()
