"""The Docker stack of docker-compose.yml, beside any other on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support import debian
from tests.support.stack import HOST, ROOT, free_ports
from tests.support.waiting import wait_until

_PATIENCE_S = 300
"""For a command to end, on a busy machine."""
_BUILD_PATIENCE_S = 3600
_LABEL = "com.docker.compose"


def install() -> None:
    """Make sure that Docker and Compose are there. Ends the process with what to do where they cannot be had."""
    if not shutil.which("docker") or not _has_plugin():
        debian.install(("docker", "docker-compose"), ("docker.io", "docker-compose"))


class EngineMissing(Exception):
    """No Docker engine answers. The message says what to do."""


def docker(*arguments: str, environment: Mapping[str, str] = os.environ) -> str:
    """What the command prints. Raises RuntimeError with what it says when it fails."""
    return _run(["docker", *arguments], environment, _PATIENCE_S)


def inspect(name: str) -> dict[str, Any]:
    """All that the engine knows of an image, a container or a network."""
    return dict(json.loads(docker("inspect", name))[0])


@contextmanager
def engine() -> Iterator[None]:
    """A Docker engine for the block: the one that answers, or one started here. Raises EngineMissing."""
    if _answers():
        yield
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise EngineMissing("No Docker engine answers, and only root can start dockerd: start it, and run this again.")
    with subprocess.Popen(["dockerd"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(_answers, lambda: f"dockerd does not answer; it ended with {process.poll()}", patience_s=60)
            yield
        finally:
            process.terminate()


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Compose:
    """One project of Compose."""

    project: str
    files: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def on_free_ports(cls, project: str, files: Sequence[str]) -> Compose:
        gateway, grafana, locust = map(str, free_ports(3))
        ports = {
            "TANDEM_GATEWAY_PORT": gateway,
            "TANDEM_GRAFANA_PORT": grafana,
            "TANDEM_LOCUST_PORT": locust,
        }
        # Compose 1 finds the images of legacy builds only, and the engine may have no other builder.
        builder = {} if _has_plugin() else {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        return cls(project, files, {**os.environ, **builder, **ports})

    def url(self, service: str) -> str:
        """Of `gateway`, `grafana` or `locust`, as the host sees it."""
        return f"http://{HOST}:{self.environment[f'TANDEM_{service.upper()}_PORT']}"

    def run(self, *arguments: str, timeout_s: float = _PATIENCE_S) -> str:
        """What `docker compose …` prints. Raises RuntimeError with what it says when it fails."""
        client = ["docker", "compose"] if _has_plugin() else ["docker-compose"]
        files = [option for file in self.files for option in ("-f", file)]
        return _run([*client, "-p", self.project, *files, *arguments], self.environment, timeout_s)

    def build(self, *services: str) -> float:
        """Build their images; the seconds that it took."""
        start_s = time.monotonic()
        self.run("--profile", "load", "--profile", "models", "build", *services, timeout_s=_BUILD_PATIENCE_S)
        return time.monotonic() - start_s

    def build_elsewhere(self, service: str, folder: Path) -> str:
        """Build the service's image of a copy of this repository in `folder`; its tag, to be removed."""
        found = yaml.safe_load(self.run("config"))["services"][service]["build"]
        options = [f"--build-arg={name}={value}" for name, value in (found.get("args") or {}).items()]
        if "target" in found:
            options.append(f"--target={found['target']}")
        tag = f"{self.project}-elsewhere"
        file = folder / found["dockerfile"]
        docker("build", "--tag", tag, "--file", str(file), *options, str(folder), environment=self.environment)
        return tag

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """All that the engine knows of the project's containers, those that have ended too."""
        filters = ["--filter", f"label={_LABEL}.project={self.project}"]
        if service is not None:
            filters += ["--filter", f"label={_LABEL}.service={service}"]
        return [inspect(each) for each in docker("ps", "--all", "--quiet", *filters).split()]

    def container(self, service: str) -> dict[str, Any]:
        """The service's only container."""
        (found,) = self.containers(service)
        return found

    def healthy(self, service: str, count: int = 1) -> bool:
        health = [each["State"].get("Health", {}).get("Status") for each in self.containers(service)]
        return health == ["healthy"] * count

    def await_healthy(self, service: str, count: int = 1) -> None:
        wait_until(lambda: self.healthy(service, count), lambda: f"{service} is not healthy:\n{self.logs(service)}")

    def logs(self, service: str) -> str:
        return self.run("logs", "--tail", "50", service)

    def address(self, service: str) -> str:
        """An IP address of the service's only container: the engine's host reaches what is not published, too."""
        networks = self.container(service)["NetworkSettings"]["Networks"].values()
        return str(next(each["IPAddress"] for each in networks))

    def execute(self, service: str, *command: str) -> str:
        """What the command prints in the service's only container."""
        return docker("exec", self.container(service)["Id"], *command)

    def down(self) -> None:
        """Take all of it away. Raises RuntimeError when something is left."""
        self.run("--profile", "load", "--profile", "models", "down", "--volumes", "--remove-orphans", "--rmi", "local")
        if left := self.leftovers():
            raise RuntimeError(f"`down` left {left}")

    def ready(self) -> bool:
        """Whether the gateway says that every model is ready on both runtimes."""
        try:
            models = httpx.get(f"{self.url('gateway')}/readyz", timeout=10).json()["models"]
        except httpx.TransportError:
            return False
        states = [each["state"] for model in models.values() for each in model.values()]
        return bool(states) and set(states) == {"ready"}

    def leftovers(self) -> dict[str, list[str]]:
        """The project's containers, networks and volumes."""
        label = ("--filter", f"label={_LABEL}.project={self.project}", "--quiet")
        kinds = {"container": ("ps", "--all"), "network": ("network", "ls"), "volume": ("volume", "ls")}
        return {kind: found for kind, command in kinds.items() if (found := docker(*command, *label).split())}


def layers(image: str) -> list[str]:
    """Digests of an image's layers, the base's first."""
    return list(inspect(image)["RootFS"]["Layers"])


def own_bytes(image: str, base: str) -> int:
    """Size of the layers that `image` adds to `base`."""
    assert layers(image)[: len(layers(base))] == layers(base), f"{image} does not stand on {base}"
    return int(inspect(image)["Size"]) - int(inspect(base)["Size"])


@cache
def _has_plugin() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    install()
