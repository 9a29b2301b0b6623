"""locust as its users run it: processes of their own, since it patches the standard library."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import HOST, ROOT, free_ports

LOCUSTFILE = ROOT / "loadtests" / "locustfile.py"
COMMAND = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
_PATIENCE_S = 60

Samples = dict[tuple[str, ...], float]
"""The values of a series' samples, by the values of its labels, in the order of the labels' names."""


def headless(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """locust without its web interface, until it ends."""
    return subprocess.run(
        [*COMMAND, "--headless", "--only-summary", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Web:
    """A locust with its web interface."""

    process: subprocess.Popen[str]
    client: httpx.Client

    def report(self) -> dict[str, Any]:
        return dict(self.client.get("/stats/requests").json())

    def await_state(self, state: str) -> None:
        """Until the run is in that state. Fails when locust ends before, or it takes too long."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            assert self.process.poll() is None, f"locust ended with {self.process.returncode}"
            assert time.monotonic() < until, f"not {state}: {self.report()}"
            try:
                if self.report()["state"] == state:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.05)

    def metrics(self) -> dict[str, Samples]:
        """Every series at `/metrics`."""
        page = self.client.get("/metrics")
        page.raise_for_status()
        found: dict[str, Samples] = {}
        for family in text_string_to_metric_families(page.text):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found


@contextmanager
def web(*arguments: str) -> Iterator[Web]:
    (port,) = free_ports(1)
    command = [*COMMAND, "--web-host", HOST, "--web-port", str(port), "--loglevel", "ERROR", *arguments]
    with (
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client,
    ):
        try:
            yield Web(process, client)
        finally:
            process.terminate()
