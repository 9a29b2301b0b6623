"""A real PostgreSQL server. As a command: installs Debian's if there is none."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.support import debian
from tests.support.stack import HOST, free_ports
from tests.support.waiting import wait_until

PROGRAMS = ("initdb", "postgres")
_USER = "tandem"
_PATIENCE_S = 60


def path() -> str:
    """The PATH, and the folders where Debian puts the programs, which no PATH has."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    return os.pathsep.join([os.environ["PATH"], *sorted(map(str, folders), reverse=True)])


def installed() -> bool:
    return all(shutil.which(program, path=path()) for program in PROGRAMS)


def install() -> None:
    """Make sure that there is one. Ends the process with what to do where it cannot be had."""
    debian.install(PROGRAMS, ("postgresql",), path())


class Server:
    """One server with its files in `folder`, on a free port. For root an unprivileged user runs it: it refuses root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._password = secrets.token_hex(8)
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        password = folder / "password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            user = next(each for each in pwd.getpwall() if each.pw_name in ("postgres", "nobody"))
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            for each in (folder, password):
                os.chown(each, user.pw_uid, user.pw_gid)
        self._initialise(f"--pwfile={password}")

    def _command(self, command: Sequence[str]) -> list[str]:
        program = shutil.which(command[0], path=path())
        if program is None:
            raise FileNotFoundError(f"{command[0]} is missing: run `make test-postgres`, which installs it.")
        return [program, *command[1:]]

    def _initialise(self, *options: str) -> None:
        """Raises RuntimeError with what it printed."""
        command = [
            "initdb",
            f"--pgdata={self._folder}/data",
            f"--username={_USER}",
            "--auth=scram-sha-256",
            "--no-sync",
        ]
        run = subprocess.run(
            self._command([*command, *options]),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if run.returncode:
            raise RuntimeError(f"initdb ended with {run.returncode}: {run.stdout}{run.stderr}")

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}:{self._password}@{HOST}:{self._port}/{database}"

    def start(self) -> None:
        """Returns when it answers. Raises TimeoutError with what it printed."""
        log = self._folder / "server.log"
        options = {"port": self._port, "listen_addresses": HOST, "unix_socket_directories": "", "fsync": "off"}
        command = self._command(["postgres", "-D", f"{self._folder}/data"])
        command += [f"--{name}={value}" for name, value in options.items()]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT, **self._as
            )
        wait_until(self._answers, log.read_text, patience_s=_PATIENCE_S, pause_s=0.05)

    def stop(self) -> None:
        """Its connections are cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def create(self, database: str) -> str:
        """A new database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.url(database)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), connect_timeout=5):
            return True
        return False


@contextmanager
def running_postgres() -> Iterator[Server]:
    """A server that answers, gone with its files when the block ends."""
    # Not in pytest's folder: that is closed to other users than the one who runs the tests.
    with tempfile.TemporaryDirectory(prefix="tandem-postgres-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


if __name__ == "__main__":
    install()
