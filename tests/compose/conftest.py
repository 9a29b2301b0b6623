"""The Docker stack, built and started. It needs a Docker engine and base images, and minutes: `make test-compose` alone
runs these tests."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from tests.support.compose import Compose, EngineMissing, engine, own_bytes
from tests.support.waiting import wait_until

BASE = "python:3.11-slim-bookworm"
BUILT = ("gateway", "torch_worker", "packages", "locust")
UP = ("gateway", "torch_worker", "tf_worker", "prometheus")
"""What runs without a profile, but Grafana."""
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--official",
        action="store_true",
        help="Grafana and TensorFlow Serving's own image, both pulled; else our stand-in, and no Grafana",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("the Docker stack")
    for line in config.stash[_FIGURES]:
        terminalreporter.write_line(line)


@dataclass(frozen=True)
class Running:
    """The stack with every model ready on both runtimes, and Prometheus."""

    compose: Compose
    official: bool
    prometheus: str
    """Its URL."""

    @property
    def gateway(self) -> str:
        return self.compose.url("gateway")

    @property
    def built(self) -> tuple[str, ...]:
        """Running services whose images are ours."""
        return ("gateway", "torch_worker") if self.official else ("gateway", "torch_worker", "tf_worker")

    def image(self, service: str) -> str:
        return str(self.compose.containers(service)[0]["Image"])


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines to print at the end."""
    return pytestconfig.stash[_FIGURES]


@pytest.fixture(scope="session")
def official(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("official"))


@pytest.fixture(scope="session")
def compose(official: bool, figures: list[str]) -> Iterator[Compose]:
    """The project with its images built; taken down at the end, with its volumes."""
    files = ["docker-compose.yml", *([] if official else ["docker-compose.embedded.yml"])]
    made = Compose.on_free_ports(f"tandem-test-{os.getpid()}", files)
    if (fault := _fault_of_torch_index()) is not None:
        made = replace(made, environment={**made.environment, "TANDEM_TORCH_INDEX": ""})
        figures.append(f"{fault}: built with TANDEM_TORCH_INDEX empty.")
    try:
        with engine():
            try:
                took_s = made.build(*BUILT, *([] if official else ["tf_worker"]))
                figures.append(f"images built in {took_s:.0f} s, with what the engine had in its cache")
                yield made
            finally:
                made.down()
    except EngineMissing as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def running(compose: Compose, official: bool, figures: list[str]) -> Running:
    start_s = time.monotonic()
    compose.run("up", "--detach", *UP, *(["grafana"] if official else []), timeout_s=900)
    wait_until(compose.ready, lambda: f"not ready:\n{compose.logs('gateway')}")
    took_s = time.monotonic() - start_s
    figures.append(f"both runtimes ready {took_s:.0f} s after `up`, which built the model packages first")
    compose.await_healthy("prometheus")
    made = Running(compose, official, f"http://{compose.address('prometheus')}:9090")
    figures.extend(
        f"{service}: {own_bytes(made.image(service), BASE) / 1e6:.0f} MB on top of the base image"
        for service in (*made.built, "packages")
    )
    return made


def _fault_of_torch_index() -> str | None:
    """Why the index of CPU-only torch wheels cannot be reached; None where it can."""
    try:
        httpx.head(_TORCH_INDEX, timeout=5, follow_redirects=True)
    except httpx.TransportError as error:
        return f"{_TORCH_INDEX} cannot be reached ({error})"
    return None
