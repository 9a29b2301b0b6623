"""Makes `.venv`, `.venv-torch` and `.venv-tf`, side by side, each from its part of pyproject.toml.

An environment that is finished holds a stamp: a digest of all it was made from. The same digest: nothing to do.
Another one: it is brought up to date. None, because the installation was interrupted, or the machine, the Python or the
folder changed: it is made anew. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tandem.preflight import (
    MIB,
    Problem,
    check_disk,
    check_memory,
    check_ports,
    check_venv,
    check_writable,
    endpoints,
)
from tandem.processes import Child, adopt_orphans, tail

ROOT = Path(__file__).resolve().parent.parent
PIP = "pip==26.3"  # --group needs 25.1; the one that comes with Python may be older
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX_PATIENCE_S = 3.0
PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Environment:
    folder: str
    wants: tuple[str, ...]
    """pip's arguments: what to install."""
    disk: int
    """Bytes that making it takes."""


def environments(gpu: bool) -> tuple[Environment, ...]:
    """The environments of the embedded stack and of its tests."""
    cuda = 6000 * MIB if gpu else 0
    return (
        Environment(".venv", ("-e", ".[comparison]", "--group", "dev"), 1000 * MIB),
        Environment(".venv-torch", ("--group", "torch-worker", "--group", "worker-tests"), 1600 * MIB + cuda),
        Environment(
            ".venv-tf",
            ("--group", "tf-worker", "--group", "worker-tests", *(["tensorflow[and-cuda]"] if gpu else [])),
            2600 * MIB + cuda,
        ),
    )


def converters(gpu: bool) -> tuple[Environment, ...]:
    """The environments of the conversion tools. `tandem models add` makes one when a source first needs it."""
    cuda = 6000 * MIB if gpu else 0
    return (
        Environment(".venv-convert", ("--group", "convert"), 4000 * MIB + cuda),
        Environment(".venv-ultralytics", ("--group", "ultralytics"), 2500 * MIB + cuda),
    )


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA GPU can be used here, as far as its driver says. TANDEM_GPU=0 or 1 overrides it."""
    if said := os.environ.get("TANDEM_GPU"):
        return said != "0"
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    if (tool := shutil.which("nvidia-smi")) is None:  # WSL has no such device files
        return False
    try:
        answer = subprocess.run([tool, "-L"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.startswith(b"GPU ")


@dataclass(frozen=True)
class Recipe:
    """What an environment is made from, in two digests."""

    base: str
    """Where the two differ in this, the environment is made anew: pip would keep e.g. a CPU build of torch."""
    packages: str

    @classmethod
    def of(cls, environment: Environment, root: Path, gpu: bool) -> Recipe:
        project = tomllib.loads((root / "pyproject.toml").read_text())
        installed = (
            {name: project.get(name) for name in ("build-system", "project", "dependency-groups")},
            project.get("tool", {}).get("setuptools"),
            (root / "constraints.txt").read_text(),
            environment.wants,
            PIP,
        )
        base = (str(root), sys.base_prefix, sys.version, gpu, os.environ.get("TANDEM_TORCH_INDEX"))
        return cls(_digest(base), _digest(installed))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class Failed(Exception):
    """A step of an installation failed. The message ends with the tail of its log."""


@dataclass
class Installation:
    """One environment on its way."""

    environment: Environment
    root: Path
    logs: Path
    recipe: Recipe
    started: float = field(default_factory=time.monotonic)
    step: str = "waiting"

    @property
    def folder(self) -> Path:
        return self.root / self.environment.folder

    @property
    def log(self) -> Path:
        return self.logs / f"install-{self.environment.folder.lstrip('.')}.log"

    @property
    def stamp(self) -> Path:
        return self.folder / "tandem-installed.json"

    def is_finished(self) -> bool:
        return self._read_stamp() == self.recipe

    def _read_stamp(self) -> Recipe | None:
        try:
            return Recipe(**json.loads(self.stamp.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    async def run(self, index: asyncio.Future[list[str]]) -> None:
        """Make the environment. Raises Failed. When it is cancelled, or fails, no stamp is left."""
        earlier = self._read_stamp()
        self.stamp.unlink(missing_ok=True)
        self.log.write_bytes(b"")
        python = self.folder / "bin" / "python"
        if earlier is None or earlier.base != self.recipe.base:
            self.step = "creating"
            # Not sys.executable: that is the environment itself when it is activated.
            base_python = getattr(sys, "_base_executable", sys.executable)
            await self._execute(base_python, "-m", "venv", "--clear", self.folder)
            self.step = "updating pip"
            await self._execute(python, *_PIP_INSTALL, PIP)
        self.step = "resolving"
        where = [] if self.environment.folder in (".venv", ".venv-tf") else await index
        await self._execute(python, *_PIP_INSTALL, "-c", "constraints.txt", *where, *self.environment.wants)
        self.stamp.write_text(json.dumps(vars(self.recipe)))
        self.step = f"ready after {time.monotonic() - self.started:.0f} s"
        say(f"{self.environment.folder:<12} {self.step}")

    async def _execute(self, *command: str | Path) -> None:
        environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            child = await Child.start(command, log=log, cwd=self.root, env=environ | {"PYTHONUNBUFFERED": "1"})
            try:
                code = await child.wait()
            finally:
                await child.stop(grace_s=0)
        if code != 0:
            raise Failed(
                f"{tail(self.log)}\n\nInstalling {self.environment.folder} failed (exit status {code} while"
                f" {self.step}); all of it is in {self.log}"
            )

    def progress(self) -> str:
        """What it is doing, in a few words: pip's latest step."""
        doing = self.step
        if doing == "resolving":
            for line in reversed(tail(self.log, 40).splitlines()):
                if match := re.match(
                    r"\s*(Collecting|Downloading|Using cached) (?:\S+/)?(\S+?)(?:-\d\S*)?(?:\s|$)", line
                ):
                    doing = f"{match[1].lower()} {match[2]}"
                    break
                if match := re.match(r"Installing collected packages: (.*)", line):
                    doing = f"installing {match[1].count(',') + 1} packages"
                    break
        return f"{self.environment.folder} {doing}"


_PIP_INSTALL = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (what a person who ran make sees)


async def torch_index(root: Path, gpu: bool) -> list[str]:
    """pip's arguments that name the index with the CPU builds of torch: the ordinary Linux build brings gigabytes of
    CUDA. Without an answer from it, pip's own configuration has to do. TANDEM_TORCH_INDEX overrides it; empty: none."""
    chosen = os.environ.get("TANDEM_TORCH_INDEX")
    if chosen is None:
        chosen = TORCH_CPU_INDEX if not gpu and sys.platform == "linux" and await _answers(root) else ""
    return ["--extra-index-url", chosen] if chosen else []


async def _answers(root: Path) -> bool:
    """Whether the index answers soon. Asked in a process: name resolution has no time limit of its own."""
    program = f"import urllib.request; urllib.request.urlopen({f'{TORCH_CPU_INDEX}/torch/'!r})"
    certificates = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
    environ = {**os.environ, **({"SSL_CERT_FILE": certificates} if certificates else {})}
    child = await Child.start([sys.executable, "-c", program], log=subprocess.DEVNULL, cwd=root, env=environ)
    try:
        async with asyncio.timeout(INDEX_PATIENCE_S):
            return await child.wait() == 0
    except TimeoutError:
        return False
    finally:
        await child.stop(grace_s=0)


async def install(installations: Sequence[Installation], gpu: bool) -> None:
    """All of them, side by side. Raises Failed when one does; the others are ended then."""
    started = time.monotonic()
    loop = asyncio.get_running_loop()
    adopt_orphans()
    work = asyncio.current_task()
    assert work is not None  # noqa: S101  (there always is one in a coroutine)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, work.cancel, number)
    try:
        async with asyncio.TaskGroup() as group:
            index = group.create_task(torch_index(installations[0].root, gpu))
            running = [group.create_task(installation.run(index)) for installation in installations]
            while (await asyncio.wait(running, timeout=PROGRESS_EVERY_S))[1]:
                states = " · ".join(
                    installation.progress()
                    for installation, task in zip(installations, running, strict=True)
                    if not task.done()
                )
                say(f"{time.monotonic() - started:>4.0f} s  {states}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Two `make` in one folder do not install into the same environments at once. Vanishes with its process."""
    with (root / "pyproject.toml").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another make is setting up the environments here; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str]) -> int:
    """Make the environments named in `arguments`, or all of the stack's. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m tandem.bootstrap", description=__doc__)
    parser.add_argument("environment", nargs="*", help="folders; all of the stack's when none is named")
    parser.add_argument("--up", action="store_true", help="check memory and ports first: the stack comes next")
    options = parser.parse_args(arguments)
    try:
        return _set_up(options.environment, going_up=options.up)
    except (Problem, Failed, OSError) as problem:
        print(problem, file=sys.stderr)  # noqa: T201
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        say("Interrupted: the next make makes the unfinished environments anew.")
        return 130


def _set_up(names: Sequence[str], *, going_up: bool) -> int:
    check_writable(ROOT)
    gpu = has_nvidia_gpu()
    logs = ROOT / os.environ.get("TANDEM_VAR", "var") / "logs"
    wanted = [each for each in (*environments(gpu), *converters(gpu)) if each.folder in names] or environments(gpu)
    with only_one(ROOT):
        missing = [
            installation
            for each in wanted
            if not (installation := Installation(each, ROOT, logs, Recipe.of(each, ROOT, gpu))).is_finished()
        ]
        if not missing:
            return 0
        check_venv()
        check_disk(ROOT, sum(each.environment.disk for each in missing if not each.folder.exists()))
        if going_up:
            check_memory()
            check_ports(endpoints(os.environ))
        logs.mkdir(parents=True, exist_ok=True)
        say(
            f"Setting up {', '.join(each.environment.folder for each in missing)} with Python"
            f" {platform.python_version()}, for {'an NVIDIA GPU' if gpu else 'the CPU'}; pip's output is in"
            f" {os.path.relpath(logs)}/install-*.log"
        )
        asyncio.run(install(missing, gpu))
    return 0
