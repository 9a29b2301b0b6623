"""The gateway as a process of its own: for what only a process can have done to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.asking import count
from tests.support.packages import write_store
from tests.support.stack import HOST, ROOT, free_ports
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Gateway:
    process: subprocess.Popen[bytes]
    client: httpx.Client
    output: Path
    """What it printed."""

    def count(self, series: str) -> float:
        """The sum of the values of all series that begin like this."""
        return count(self.client, series)


@contextmanager
def running_gateway(
    var: Path, *arguments: str, program: str = "tests.fakes.gateway", **settings: str
) -> Iterator[Gateway]:
    """A gateway with `digits` in its store, which answers when the block begins, and is killed when it ends.

    `arguments` are those of `program`: without another one, over fake runtimes. With TLS the client does not verify.
    """
    if not (var / "store").exists():
        write_store(var / "store", 1, 2)
    (port,) = free_ports(1)
    environment = os.environ | {
        "TANDEM_VAR": str(var),
        "TANDEM_HTTP__PORT": str(port),
        "TANDEM_WARM_UP_REQUESTS": "0",
        **settings,
    }
    tls = "TANDEM_HTTP__TLS_CERTIFICATE" in settings
    url = f"{'https' if tls else 'http'}://{HOST}:{port}"
    output = var / f"gateway-{port}.log"
    command = [sys.executable, "-m", program, *arguments]
    with (
        httpx.Client(base_url=url, timeout=30, verify=not tls) as client,
        output.open("wb") as file,
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_until(
                lambda: process.poll() is not None or _lives(client), output.read_text, patience_s=60, pause_s=0.05
            )
            if process.poll() is not None:
                raise RuntimeError(f"The gateway ended with {process.returncode}:\n{output.read_text()}")
            yield Gateway(process, client, output)
        finally:
            process.kill()


def _lives(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").is_success
    except httpx.TransportError:
        return False
