"""A process with a gateway over the fake runtimes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.stack import HOST, ROOT, free_ports
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class FakeGateway:
    pid: int
    port: int
    var: Path
    started_in_s: float
    """From the start of the process to its first answer."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def lives(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=5).is_success
        except httpx.TransportError:
            return False

    def set_policy(self, policy: dict[str, object], model: str = "digits") -> None:
        headers = {"authorization": f"Bearer {(self.var / 'admin.key').read_text().strip()}"}
        httpx.put(f"{self.url}/v1/models/{model}/routing", json=policy, headers=headers).raise_for_status()


@contextmanager
def fake_gateway(var: Path, *arguments: str, **settings: str) -> Iterator[FakeGateway]:
    """`arguments` are those of `tests.fakes.gateway`; `var` holds the store."""
    (port,) = free_ports(1)
    environment = os.environ | {"TANDEM_VAR": str(var), "TANDEM_HTTP__PORT": str(port)} | settings
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "tests.fakes.gateway", *arguments]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            gateway = FakeGateway(process.pid, port, var, 0.0)
            wait_until(lambda: gateway.lives() or process.poll() is not None, lambda: "no answer", pause_s=0.01)
            if process.returncode is not None:
                raise RuntimeError(f"The gateway ended with {process.returncode}.")
            yield FakeGateway(process.pid, port, var, time.perf_counter() - start_s)
        finally:
            process.terminate()
