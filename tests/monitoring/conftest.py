"""A stack under load, and a Prometheus that scrapes all of it: slow, so only `make test-monitoring` runs this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.locust import web
from tests.support.prometheus import PROGRAMS, installed, running_prometheus
from tests.support.stack import HOST, Stack
from tests.support.waiting import wait_until

_PATIENCE_S = 180
"""A scrape every 5 s, rates over 20 s, recorded ones over a minute, alerts that wait another one; on a busy machine."""


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    if not installed():
        pytest.fail(f"{' and '.join(PROGRAMS)} are not on the PATH: run `make test-monitoring`, which installs them.")


@dataclass(frozen=True)
class Monitored:
    stack: Stack
    url: str
    """Of Prometheus."""

    def alerts(self) -> set[tuple[str, str, str]]:
        """Name, state and runtime (or an empty string) of the alerts that are not silent."""
        found = httpx.get(f"{self.url}/api/v1/alerts", timeout=30).json()["data"]["alerts"]
        return {(each["labels"]["alertname"], each["state"], each["labels"].get("runtime", "")) for each in found}

    def wait_for(self, wanted: Callable[[], Any], describe: Callable[[], object]) -> None:
        wait_until(wanted, describe, patience_s=_PATIENCE_S, pause_s=1)


@pytest.fixture(scope="session")
def monitored(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """The stack with users of every class, and a Prometheus that scrapes every job but the GPU's."""
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with web("--host", stack.url, "--autostart", "-u", "10", "-r", "10") as locust:
        locust.await_state("running")
        targets = {
            "gateway": stack.url.removeprefix("http://"),
            "torch": f"{HOST}:{stack.environment['TANDEM_TORCH__METRICS_PORT']}",
            "tf": f"{HOST}:{stack.environment['TANDEM_TF__REST_PORT']}",
            "locust": f"{locust.client.base_url.host}:{locust.client.base_url.port}",
        }
        with running_prometheus(folder, targets) as url:
            yield Monitored(stack, url)
