"""Fixtures of the gateway's tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gateway import log
from gateway.app import create_app
from gateway.settings import LogSettings, Settings
from modelkit.spec import RuntimeName
from tests.fakes.runtimes import FakeRuntime
from tests.support.packages import add_broken_model, detector_spec, segmenter_spec, write_packages, write_store
from tests.support.serving import served
from tests.support.stack import ROOT, Stack, running_stack

Fakes = dict[RuntimeName, FakeRuntime]
StartGateway = Callable[..., httpx.Client]


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    log.configure(LogSettings(format="console", level="warning"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fakes() -> Fakes:
    return {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf")}


@pytest.fixture
def start_gateway(tmp_path: Path, fakes: Fakes) -> Iterator[StartGateway]:
    """Starts a gateway over the fakes, with settings of the test's own; gives a client of it."""
    with ExitStack() as stack:

        def start(**settings: object) -> httpx.Client:
            if not (tmp_path / "store").exists():
                write_store(tmp_path / "store", 1, 2)
                write_packages(tmp_path / "store", detector_spec(), segmenter_spec())
            app = create_app(Settings(var=tmp_path, warm_up_requests=0, **settings), fakes)  # type: ignore[arg-type]
            url = stack.enter_context(served(app))
            return stack.enter_context(httpx.Client(base_url=url, timeout=30))

        yield start


@pytest.fixture
def client(start_gateway: StartGateway) -> httpx.Client:
    """A client of a gateway with default settings."""
    return start_gateway()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack in which `digits` is ready on both runtimes and `broken` failed to load on both."""
    var = tmp_path_factory.mktemp("stack")
    build = [sys.executable, "-m", "modelkit", "build", f"--store={var / 'store'}", f"--serving={var / 'serving'}"]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    add_broken_model(var / "store")
    with running_stack(var) as stack:
        stack.wait_until_ready()
        yield stack
