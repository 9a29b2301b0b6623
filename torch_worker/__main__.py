"""Start TorchServe on the archives of a folder.

The process becomes the JVM (exec), so that its id stays and signals reach it. All that TorchServe writes stays in
the work folder, and one log goes to the standard output.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from torch_worker import config, tuning
from torch_worker.archive import Archive, InvalidArchive, read_archive


class CannotStart(Exception):
    """Why TorchServe is not started. The message is for the person who runs it."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torch_worker", description=__doc__)
    parser.add_argument("--serving", type=Path, required=True, help="folder of the archives, <name>-<version>.mar")
    parser.add_argument("--work-dir", type=Path, required=True, help="folder for all that TorchServe writes")
    parser.add_argument("--host", default="127.0.0.1", help="address of all five ports")
    parser.add_argument("--grpc-port", type=int, default=7070)
    parser.add_argument("--grpc-management-port", type=int, default=7071)
    parser.add_argument("--http-port", type=int, default=8080)
    parser.add_argument("--http-management-port", type=int, default=8081)
    parser.add_argument("--metrics-port", type=int, default=8082)
    parser.add_argument("--workers", type=int, default=0, help="for each model; 0: one for each GPU, or one without")
    parser.add_argument(
        "--threads", type=int, default=0, help="that all workers of a model compute with; 0: one for each CPU"
    )
    parser.add_argument("--certificate", type=Path, help="PEM file: TLS for both gRPC ports, with --key")
    parser.add_argument("--key", type=Path, help="PEM file (PKCS 8, no password) of the certificate's key")
    given = parser.parse_args(arguments)
    if (given.certificate is None) != (given.key is None):
        parser.error("--certificate and --key belong together: give both or neither")
    return given


def say(line: str) -> None:
    sys.stderr.write(f"torch_worker: {line}\n")


def find_archives(serving: Path) -> list[Archive]:
    """The archives that can be loaded; one that can't is skipped with a line that says why."""
    if not serving.is_dir():
        raise CannotStart(f"the serving folder {serving} does not exist; build the model packages first")
    archives = []
    for path in sorted(serving.glob("*.mar")):
        try:
            archives.append(read_archive(path))
        except InvalidArchive as error:
            say(f"skipped {path.name}: {error}")
    if not archives:
        say(f"no archive in {serving}: TorchServe starts without a model")
    return archives


def find_tls(certificate: Path | None, key: Path | None) -> config.Tls | None:
    """Raises CannotStart for a file that cannot be read: TorchServe would only end with a traceback."""
    if certificate is None or key is None:
        return None
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise CannotStart(f"{path} cannot be read: {error.strerror}") from error
    return config.Tls(certificate.resolve(), key.resolve())


def check_ports(host: str, ports: config.Ports) -> None:
    """Raises CannotStart for a port that is taken or named twice."""
    for name, port in ports._asdict().items():
        if ports.count(port) > 1:
            raise CannotStart(f"port {port} is given twice")
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                why = "in use" if error.errno == errno.EADDRINUSE else error.strerror
                raise CannotStart(f"{name.replace('_', ' ')} port {host}:{port} is {why}") from error


def count_gpus() -> int:
    """GPUs TorchServe will see: like it, asks nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = sum(line.startswith("GPU ") for line in listed.splitlines())
    return count if visible is None else min(count, len([each for each in visible.split(",") if each.strip()]))


def main() -> None:
    given = parse()
    layout = config.Layout(given.serving.resolve(), given.work_dir.resolve())
    ports = config.Ports(
        given.grpc_port,
        given.grpc_management_port,
        given.http_port,
        given.http_management_port,
        given.metrics_port,
    )
    workers = given.workers or max(1, count_gpus())
    try:
        archives = find_archives(layout.serving)
        if layout.path_too_long:
            raise CannotStart(f"the path of --work-dir is too long for Unix sockets: {layout.work}")
        tls = find_tls(given.certificate, given.key)
        check_ports(given.host, ports)
        command = config.java_command(layout, archives)
        # Archives that an earlier, killed TorchServe unpacked. The ports are free: it is not running any more.
        shutil.rmtree(layout.temporary, ignore_errors=True)
        layout.temporary.mkdir(parents=True)
        sizes = config.Sizes.of(archives)
        layout.properties.write_text(config.properties(layout, given.host, ports, workers, sizes, tls))
        os.chdir(layout.work)
        threads = given.threads or tuning.available_cpus()
        environment = config.environment(layout, os.environ, workers, threads, sizes)
        os.execve(command[0], command, environment)  # noqa: S606  (a shell would take the signals)
    except (CannotStart, OSError, ModuleNotFoundError) as error:
        sys.exit(f"torch_worker: {error}")


if __name__ == "__main__":
    main()
