"""locust as its users run it: processes of their own, since it patches the standard library."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import HOST, free_ports

ROOT = Path(__file__).resolve().parents[2]
LOCUSTFILE = ROOT / "loadtests" / "locustfile.py"
COMMAND = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
_PATIENCE_S = 60

Samples = dict[tuple[str, ...], float]
"""The values of a series' samples, by the values of its labels, in the order of the labels' names."""


class Option(NamedTuple):
    name: str
    variable: str
    default: str


@cache
def options() -> list[Option]:
    """What the locustfile and locust itself can be told; from another process, for locust patches the one it is in."""
    ask = """
import json, loadtests.locustfile
from locust.argument_parser import get_parser
actions = [each for each in get_parser()._actions if getattr(each, "env_var", None)]
print(json.dumps([[each.option_strings[-1], each.env_var, str(each.default)] for each in actions]))
"""
    run = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Option(*each) for each in json.loads(run.stdout)]


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
        """locust's table; up to two seconds old, unlike `metrics`."""
        return dict(self.client.get("/stats/requests").json())

    def until(self, true: Callable[[], bool]) -> None:
        """Until that is so. Fails when locust ends before, or it takes too long."""
        give_up = time.monotonic() + _PATIENCE_S
        while not self._holds(true):
            assert self.process.poll() is None, f"locust ended with {self.process.returncode}"
            assert time.monotonic() < give_up, f"{self.report()} {self.metrics()}"
            time.sleep(0.05)

    @staticmethod
    def _holds(true: Callable[[], bool]) -> bool:
        try:
            return true()
        except httpx.TransportError:  # it does not listen yet
            return False

    def await_state(self, state: str) -> None:
        self.until(lambda: self.report()["state"] == state)

    def await_users(self, count: int) -> None:
        self.until(lambda: sum(self.metrics()["tandem_load_users"].values()) == count)

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
def started(*arguments: str, folder: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    """locust until it is no longer needed."""
    command = [*COMMAND, "--loglevel", "ERROR", *arguments]
    with subprocess.Popen(command, cwd=folder, text=True, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def web(*arguments: str) -> Iterator[Web]:
    (port,) = free_ports(1)
    with (
        started("--web-host", HOST, "--web-port", str(port), *arguments) as process,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client,
    ):
        yield Web(process, client)
