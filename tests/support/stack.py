"""A stack of its own, beside any other on this machine: real workers, real gateway, under `tandem up`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
_PATIENCE_S = 300
"""For the build of the bundled models, the start of both workers, or the return of one, on a busy machine."""


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago."""
    with ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def stack_environment(var: Path) -> dict[str, str]:
    """This process's environment, with every port of the stack moved to a free one and its files under `var`."""
    http, torch, management, torch_http, torch_management, metrics, tf, tf_rest = map(str, free_ports(8))
    return os.environ | {
        "TANDEM_VAR": str(var),
        "TANDEM_HTTP__PORT": http,
        "TANDEM_TORCH__ADDRESS": f"{HOST}:{torch}",
        "TANDEM_TORCH__MANAGEMENT_ADDRESS": f"{HOST}:{management}",
        "TANDEM_TORCH__HTTP_PORT": torch_http,
        "TANDEM_TORCH__HTTP_MANAGEMENT_PORT": torch_management,
        "TANDEM_TORCH__METRICS_PORT": metrics,
        "TANDEM_TF__ADDRESS": f"{HOST}:{tf}",
        "TANDEM_TF__REST_PORT": tf_rest,
    }


@dataclass(frozen=True)
class Stack:
    """A running `tandem up`."""

    url: str
    environment: dict[str, str]
    output: Path
    """What the supervisor printed."""

    @property
    def var(self) -> Path:
        return Path(self.environment["TANDEM_VAR"])

    def pid(self, name: str) -> int:
        """The first process that listens on the port of `gateway`, `torch` or `tf`."""
        return self.pids(name)[0]

    def pids(self, name: str) -> list[int]:
        """The processes that listen on its port."""
        address = {"gateway": "TANDEM_HTTP__PORT", "torch": "TANDEM_TORCH__ADDRESS", "tf": "TANDEM_TF__ADDRESS"}[name]
        port = int(self.environment[address].rpartition(":")[2])
        return sorted(
            {
                connection.pid
                for connection in psutil.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
                and connection.laddr[1:] == (port,)
                and connection.pid is not None
            }
        )

    def states(self) -> dict[tuple[str, str], str]:
        """The state of each model on each runtime; empty while the gateway does not answer."""
        try:
            models = httpx.get(f"{self.url}/readyz", timeout=10).json()["models"]
        except httpx.TransportError:
            return {}
        return {(name, runtime): each["state"] for name, model in models.items() for runtime, each in model.items()}

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Ask `condition` again and again until it holds. Raises TimeoutError with what the supervisor printed."""
        wait_until(condition, self.output.read_text, patience_s=_PATIENCE_S, pause_s=0.1)

    def wait_until_ready(self, model: str = "digits") -> None:
        self.wait_until(lambda: {self.states().get((model, runtime)) for runtime in ("torch", "tf")} == {"ready"})


@contextmanager
def running_stack(var: Path, **settings: str) -> Iterator[Stack]:
    """Run `tandem up` on free ports until the block ends; the block begins when the gateway answers.

    `settings`: variables of its own.

    Raises RuntimeError when it ends early, or leaves a process behind.
    """
    environment = stack_environment(var) | settings
    var.mkdir(parents=True, exist_ok=True)
    output = var / "up.log"
    command = [str(Path(sys.executable).with_name("tandem")), "up"]
    url = f"http://{HOST}:{environment['TANDEM_HTTP__PORT']}"
    stack = Stack(url, environment, output)
    with (
        output.open("wb") as file,
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            stack.wait_until(lambda: process.poll() is not None or stack.states())
            if process.returncode is not None:
                raise RuntimeError(f"tandem up ended with {process.returncode}:\n{output.read_text()}")
            yield stack
        finally:
            started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            process.wait(60)
    left = [each for each in started if each.is_running()]
    if left:
        raise RuntimeError(f"tandem up left behind: {left}")
