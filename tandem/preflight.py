"""What a machine must have, checked before the long steps. Each check raises Problem. Standard library only."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
NEEDED_MEMORY = 1536 * MIB
"""What the whole stack takes on a CPU: 0.8 GiB at rest and 1.1 under load, measured, and room for the JVM's heap."""
NEEDED_ADDRESS_SPACE = 8192 * MIB
"""What one process may reserve (not use): the JVM reserved 3.4 GiB on two cores, and more on more."""


class Problem(Exception):
    """Why the stack cannot be set up or started here. The message is one line: what is wrong, and what to do."""


@dataclass(frozen=True)
class Endpoint:
    what: str
    variable: str
    """The environment variable that moves it."""
    host: str
    port: int


_EMBEDDED = (
    ("gateway HTTP", "TANDEM_HTTP__PORT", 8000),
    ("TorchServe gRPC inference", "TANDEM_TORCH__ADDRESS", 7070),
    ("TorchServe gRPC management", "TANDEM_TORCH__MANAGEMENT_ADDRESS", 7071),
    ("TorchServe HTTP inference", "TANDEM_TORCH__HTTP_PORT", 8080),
    ("TorchServe HTTP management", "TANDEM_TORCH__HTTP_MANAGEMENT_PORT", 8081),
    ("TorchServe metrics", "TANDEM_TORCH__METRICS_PORT", 8082),
    ("TensorFlow Serving gRPC", "TANDEM_TF__ADDRESS", 8500),
    ("TensorFlow Serving HTTP", "TANDEM_TF__REST_PORT", 8501),
)


def endpoints(environ: Mapping[str, str]) -> Iterator[Endpoint]:
    """The stack's endpoints by its environment variables: what `tandem.stack.endpoints` makes of the settings, but
    without pydantic, so that a port in use is reported before the environments are installed."""
    for what, variable, default in _EMBEDDED:
        host, _, port = environ.get(variable, str(default)).rpartition(":")
        if variable == "TANDEM_HTTP__PORT":
            host = environ.get("TANDEM_HTTP__HOST", "")
        if port.isdigit():  # anything else is reported by the settings
            yield Endpoint(what, variable, host or "127.0.0.1", int(port))


def check_ports(wanted: Iterable[Endpoint]) -> None:
    """Every endpoint can be listened on, all of them at once."""
    taken: dict[int, Endpoint] = {}
    with ExitStack() as listening:
        for endpoint in wanted:
            where = f"Port {endpoint.port} ({endpoint.what})"
            if endpoint.port == 0:
                raise Problem(f"{where}: the stack needs a fixed port; set {endpoint.variable} to one.")
            if twin := taken.get(endpoint.port):
                raise Problem(
                    f"{where} is also that of {twin.what}: set {endpoint.variable} or {twin.variable} to another."
                )
            taken[endpoint.port] = endpoint
            family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
            listener = listening.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((endpoint.host.strip("[]"), endpoint.port))
                listener.listen()
            except OSError as error:
                raise Problem(_port_problem(where, endpoint, error)) from error


def _port_problem(where: str, endpoint: Endpoint, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where} is in use on {endpoint.host}: stop what uses it (`ss -ltnp 'sport = :{endpoint.port}'` shows it),"
            f" or set {endpoint.variable} to another."
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return (
            f"{where}: {endpoint.host} is not an address of this machine, where the embedded stack starts its own"
            f" workers; correct {endpoint.variable}."
        )
    return f"{where} cannot be opened on {endpoint.host}: {error.strerror}; set {endpoint.variable} to another."


def check_memory(needed: int = NEEDED_MEMORY) -> None:
    """There is memory for the stack, on the machine, in this control group and in the limit of a process."""
    free = available_memory()
    if free is not None and free < needed:
        raise Problem(
            f"Too little memory: the stack needs about {needed // MIB} MiB and {free // MIB} MiB are available;"
            " end other programs, or use a larger machine."
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < NEEDED_ADDRESS_SPACE:
        raise Problem(
            f"Too little memory: a process may reserve no more than {limit // MIB} MiB here (ulimit -v) and the JVM"
            f" needs {NEEDED_ADDRESS_SPACE // MIB} MiB; raise it, e.g. `ulimit -v unlimited`."
        )


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that new processes can have: the least of what the machine and the control groups say. None: unknown."""
    try:
        meminfo = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        groups = [line.split(":", 2) for line in (proc / "self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    figures = [int(meminfo["MemAvailable"].split()[0]) * 1024]
    for _, controllers, path in groups:
        if controllers == "":
            figures += _cgroup_figures(cgroups, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            figures += _cgroup_figures(cgroups / "memory", path, *names)
    return min(figures)


def _cgroup_figures(root: Path, path: str, limit_file: str, used_file: str, cache: str) -> Iterator[int]:
    """What is left in each group from `path` up to the root. Inside a container the root is the group itself."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            limit = (folder / limit_file).read_text().strip()
            used = int((folder / used_file).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            stat = {}
            limit = "max"
        if limit != "max":
            yield int(limit) - used + int(stat.get(cache, 0))
        if folder == root:
            return


def check_disk(folder: Path, needed: int) -> None:
    """`folder` is on a file system with `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Problem(
            f"Too little disk space: {needed // MIB} MiB are needed in {folder} and {free // MIB} MiB are free;"
            " free some, or clone to another disk."
        )


def check_venv() -> None:
    """This Python can make environments with pip in them."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise Problem(
            f"This Python cannot make environments ({error.name} is missing): install its venv package,"
            " e.g. `apt install python3-venv` on Debian and Ubuntu."
        ) from None


def check_writable(folder: Path) -> None:
    """Files can be made in `folder`."""
    if not os.access(folder, os.W_OK):
        raise Problem(f"{folder} is not writable: clone to a folder of your own, or correct its permissions.")
