"""A stack of its own, beside any other on this machine: free ports and a `var` folder for `tandem up`."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago."""
    with ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def stack_environment(var: Path) -> dict[str, str]:
    """This process's environment, with every port of the stack moved to a free one and its files under `var`."""
    http, torch, management, torch_http, torch_management, metrics, tf = map(str, free_ports(7))
    return os.environ | {
        "TANDEM_VAR": str(var),
        "TANDEM_HTTP__PORT": http,
        "TANDEM_TORCH__ADDRESS": f"{HOST}:{torch}",
        "TANDEM_TORCH__MANAGEMENT_ADDRESS": f"{HOST}:{management}",
        "TANDEM_TORCH__HTTP_PORT": torch_http,
        "TANDEM_TORCH__HTTP_MANAGEMENT_PORT": torch_management,
        "TANDEM_TORCH__METRICS_PORT": metrics,
        "TANDEM_TF__ADDRESS": f"{HOST}:{tf}",
    }
