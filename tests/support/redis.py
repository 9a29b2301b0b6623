"""A real Redis server. As a command: installs Debian's if there is none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from tests.support import debian
from tests.support.stack import HOST, free_ports
from tests.support.waiting import wait_until

PROGRAMS = ("redis-server",)
_PATIENCE_S = 60


def installed() -> bool:
    return all(map(shutil.which, PROGRAMS))


def install() -> None:
    """Make sure that there is one. Ends the process with what to do where it cannot be had."""
    debian.install(PROGRAMS, ("redis-server",))


class Server:
    """One server on a port of its own, with a password, that keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:s3cret@{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers. Raises TimeoutError with what it printed."""
        log = self._folder / "server.log"
        options = {"port": self._port, "bind": HOST, "requirepass": "s3cret", "save": "", "appendonly": "no"}
        command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT)
        wait_until(self._answers, log.read_text, patience_s=_PATIENCE_S, pause_s=0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE_S)
            self._process = None

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False


@contextmanager
def running_redis(folder: Path) -> Iterator[Server]:
    """A server that answers, stopped when the block ends."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    install()
