"""What the embedded stack consists of: the processes, their ports, and what its gateway says of them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError

from gateway import settings as gateway_settings
from gateway.settings import InvalidSettings, Settings
from modelkit import batching
from tandem.preflight import Endpoint, Problem
from tandem.supervisor import Service
from torch_worker import tuning

ROOT = Path(__file__).resolve().parent.parent
"""The repository: workers are run from it, never installed."""

GRACE_S = 12.0
"""Of a worker. The gateway, which is stopped before, has what it needs to answer what it accepted."""


def read_settings() -> Settings:
    """The settings in the environment, with an absolute `var`. Raises Problem."""
    try:
        settings = gateway_settings.read_settings()
    except InvalidSettings as error:
        raise Problem(str(error)) from None
    return settings.model_copy(update={"var": settings.var.resolve()})


def endpoints(settings: Settings) -> Iterator[Endpoint]:
    """Every port the stack listens on. Raises Problem for settings that its workers cannot follow."""
    torch = settings.torch
    for name, each in (("TORCH", torch), ("TF", settings.tf)):
        if each.tls_ca:
            raise Problem(
                f"TANDEM_{name}__TLS_CA: the embedded stack's workers speak no TLS, nothing of theirs leaves this "
                "machine. Unset it, or start the workers by themselves (docs/torch-worker.md, docs/tf-worker.md)."
            )
    worker = host_and_port("TANDEM_TORCH__ADDRESS", torch.address)
    yield Endpoint("gateway HTTP", "TANDEM_HTTP__PORT", settings.http.host, settings.http.port)
    yield Endpoint("TorchServe gRPC inference", "TANDEM_TORCH__ADDRESS", *worker)
    management = host_and_port("TANDEM_TORCH__MANAGEMENT_ADDRESS", torch.management_address)
    yield Endpoint("TorchServe gRPC management", "TANDEM_TORCH__MANAGEMENT_ADDRESS", *management)
    yield Endpoint("TorchServe HTTP inference", "TANDEM_TORCH__HTTP_PORT", worker[0], torch.http_port)
    yield Endpoint(
        "TorchServe HTTP management", "TANDEM_TORCH__HTTP_MANAGEMENT_PORT", worker[0], torch.http_management_port
    )
    yield Endpoint("TorchServe metrics", "TANDEM_TORCH__METRICS_PORT", worker[0], torch.metrics_port)
    tf = host_and_port("TANDEM_TF__ADDRESS", settings.tf.address)
    yield Endpoint("TensorFlow Serving gRPC", "TANDEM_TF__ADDRESS", *tf)
    yield Endpoint("TensorFlow Serving HTTP", "TANDEM_TF__REST_PORT", tf[0], settings.tf.rest_port)


def host_and_port(variable: str, address: str) -> tuple[str, int]:
    """Split the one address of a worker. Raises Problem for several."""
    if "," in address:
        raise Problem(
            f"{variable} names several workers, and the embedded stack starts one of each runtime: name one address. "
            "Several are for a gateway of its own (`python -m gateway`), whose workers are started by others."
        )
    host, _, port = address.rpartition(":")
    return host, int(port)


def gateway_url(settings: Settings) -> str:
    """Where a client on this machine finds the gateway."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.http.host, settings.http.host)  # noqa: S104
    return f"{'https' if settings.http.tls_certificate else 'http'}://{host}:{settings.http.port}"


def lock_file(settings: Settings) -> Path:
    """Held by the `tandem up` that runs in this `var`."""
    return settings.var / "run" / "up.lock"


def is_running(settings: Settings) -> bool:
    """Whether `tandem up` runs in this `var`, whatever state its processes are in."""
    try:
        with lock_file(settings).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def check_environments() -> None:
    """The environments of the workers are there. Raises Problem."""
    for name in ("torch", "tf"):
        if not python(name).exists():
            raise Problem(f"{ROOT / f'.venv-{name}'} is missing: run `make setup` in {ROOT}.")


def python(name: str = "") -> Path:
    """The interpreter of an environment; of the gateway's where none is named."""
    return ROOT / (f".venv-{name}" if name else ".venv") / "bin" / "python"


def build(settings: Settings, environ: Mapping[str, str]) -> Service:
    """Makes the model packages that are not up to date, and ends."""
    command = (
        str(python()),
        *("-m", "modelkit", "build"),
        *("--store", str(settings.store)),
        *("--serving", str(settings.serving)),
    )
    return Service("models", command, cwd=ROOT, env=environ, log=settings.logs / "models.log", grace_s=5.0)


GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 20)}
"""For the gateway: glibc by itself would keep what large pictures took, in each thread that decoded one (ADR 33)."""


_BEHIND = {"torch": 5, "tf": 5}
"""Niceness. On one machine the workers would take the cores from the gateway, which then could not even refuse in
time."""


def services(settings: Settings, environ: Mapping[str, str]) -> tuple[Service, ...]:
    """The three processes, each with `environ` and what it needs of its own."""
    torch = settings.torch
    torch_host, torch_port = host_and_port("TANDEM_TORCH__ADDRESS", torch.address)
    _, torch_management = host_and_port("TANDEM_TORCH__MANAGEMENT_ADDRESS", torch.management_address)
    tf_host, tf_port = host_and_port("TANDEM_TF__ADDRESS", settings.tf.address)
    environ = {**environ, "TANDEM_VAR": str(settings.var)}
    # The torch worker sets its own.
    environs = {"tf": {**tuning.KEPT_MEMORY, **environ}, "gateway": {**GIVEN_BACK, **environ}}
    # A number for both: each would count the CPUs by itself, and TensorFlow does not see the quota of a container.
    threads = str(settings.workers.threads or tuning.available_cpus())
    commands = {
        "torch": (
            str(python("torch")),
            *("-m", "torch_worker"),
            *("--serving", str(settings.serving / "torch")),
            *("--work-dir", str(settings.var / "run" / "torch")),
            *("--host", torch_host),
            *("--grpc-port", str(torch_port)),
            *("--grpc-management-port", str(torch_management)),
            *("--http-port", str(torch.http_port)),
            *("--http-management-port", str(torch.http_management_port)),
            *("--metrics-port", str(torch.metrics_port)),
            *("--workers", str(torch.workers or settings.workers.replicas)),
            *("--threads", threads),
        ),
        "tf": (
            str(python("tf")),
            *("-m", "tf_worker.server"),
            *("--host", tf_host),
            *("--port", str(tf_port)),
            *("--rest_api_port", str(settings.tf.rest_port)),
            *("--monitoring_config_file", str(ROOT / "tf_worker" / "monitoring.config")),
            *("--model_config_file", str(settings.serving / "tf" / "models.config")),
            "--enable_batching=true",
            *("--batching_parameters_file", str(batching.path(settings.serving))),
            *("--tensorflow_intra_op_parallelism", threads),
            *("--tensorflow_inter_op_parallelism", threads),
        ),
        "gateway": (str(python()), "-m", "gateway"),
    }
    grace_s = {"gateway": settings.http.stop_s}
    return tuple(
        Service(
            name,
            command,
            ROOT,
            environs.get(name, environ),
            log=settings.logs / f"{name}.log",
            grace_s=grace_s.get(name, GRACE_S),
            niceness=_BEHIND.get(name, 0),
        )
        for name, command in commands.items()
    )


class RuntimeState(BaseModel):
    """What the gateway's /readyz says of one model on one runtime."""

    state: Literal["ready", "loading", "unavailable", "failed"]
    reason: str | None = None
    version: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether waiting longer changes nothing: it answers, or cannot be loaded."""
        return self.state in ("ready", "failed")


class Readiness(BaseModel):
    ready: bool
    models: dict[str, dict[str, RuntimeState]]
    wanted: dict[str, dict[str, RuntimeState]] = {}
    """By model whose default is to move, the version that it moves to."""

    @property
    def is_settled(self) -> bool:
        """Whether waiting longer changes nothing about what answers by default."""
        return all(state.is_settled for runtimes in self.models.values() for state in runtimes.values())


async def ask_readiness(client: httpx.AsyncClient, url: str) -> Readiness | None:
    """The body of /readyz; None while the gateway does not answer."""
    try:
        return Readiness.model_validate_json((await client.get(f"{url}/readyz")).content)
    except (httpx.HTTPError, ValidationError):
        return None
