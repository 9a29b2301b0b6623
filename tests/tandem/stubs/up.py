"""`tandem up` with other programs: `up.py PLAN`, a JSON object. `build` is the command that builds the packages;
`torch` and `tf` are the options of the stub workers; `grace_s` is the services' grace; `gpu` has the interpreters that
are asked for GPUs, by runtime, and is null for a machine without one."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gateway.settings import Settings
from tandem import devices, stack, up
from tandem.cli import app
from tandem.supervisor import Service

HERE = Path(__file__).parent


def main() -> None:
    plan = json.loads(sys.argv[1])
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
    ):  # whoever runs the tests may ignore them: nohup, a job in the background
        signal.signal(number, signal.SIG_DFL)

    def service(name: str, command: list[str], settings: Settings, environ: Mapping[str, str]) -> Service:
        return Service(name, tuple(command), HERE, environ, settings.logs / f"{name}.log", plan["grace_s"])

    def build(settings: Settings, environ: Mapping[str, str]) -> Service:
        return service("models", plan["build"], settings, environ)

    def services(settings: Settings, environ: Mapping[str, str]) -> tuple[Service, ...]:
        worker = [sys.executable, "-S", str(HERE / "worker.py")]
        gateway = [sys.executable, "-S", str(HERE / "gateway.py")]
        return (
            *(service(name, [*worker, name, *plan[name]], settings, environ) for name in ("torch", "tf")),
            service("gateway", gateway, settings, environ),
        )

    devices.choose = partial(
        devices.choose, has_gpu=lambda: plan["gpu"] is not None, python=lambda name: Path(plan["gpu"][name])
    )
    stack.build = build
    stack.services = services
    stack.check_environments = lambda: None
    up.SAME_REQUEST_S = 0
    up.UNNOTICED_S = 0
    up.NEWS_EVERY_S = 0.2
    up.POLL_S = 0.05
    app(["up"])


if __name__ == "__main__":
    main()
