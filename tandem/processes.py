"""A child process in a session of its own, so that it can be ended together with all it started.

Standard library only: the environments are installed with it too.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_AUTOGROUP_TRIES = 5
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

GONE_S = 5.0
"""How long a killed group may take to vanish before it is given up (a process stuck in the kernel)."""


def adopt_orphans() -> None:
    """From now on, descendants whose parent ends become children of this process, which can then reap them."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stand_back(niceness: int) -> None:
    """Let other processes have the cores first. For the leader of a session."""
    os.nice(niceness)
    # Linux shares the cores between sessions first, and looks at niceness within each only (autogroups, sched(7)).
    for _ in range(_AUTOGROUP_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(niceness))
        except BlockingIOError:  # whoever is not root may do so once in a tenth of a second, all together
            time.sleep(0.1)
        except OSError:  # where sessions are not looked at, there is no such file
            return
        else:
            return


class Child:
    """A running process, leader of its own session and process group. It dies with the process that started it,
    even if that one is killed; it must be started from the main thread for that."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: BinaryIO | int,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        niceness: int = 0,
    ) -> Child:
        """Start `command`; both its outputs go to `log`. Raises OSError if it cannot be executed.

        `niceness`: from 0 to 19, how far it stands back where others want the cores."""
        parent = os.getpid()

        def prepare() -> None:
            if niceness:
                stand_back(niceness)
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != parent:  # it went before the line above
                    os._exit(1)

        creating = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
                preexec_fn=prepare,
            )
        )
        try:
            return cls(await asyncio.shield(creating))
        except asyncio.CancelledError:  # never lose a process that is half made
            with suppress(OSError):
                await cls(await creating).stop(grace_s=0)
            raise

    async def wait(self) -> int:
        """Wait until it ends, and end whatever it leaves behind. Returns its exit status; negative: a signal."""
        code = await self._process.wait()
        await self._clear()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group. Does nothing once the group is gone."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to the group; SIGKILL to what is left when the leader has ended or `grace_s` is over. Returns when
        nothing of the group is left."""
        if grace_s > 0 and self._process.returncode is None:
            self.signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
        await self._clear()

    async def _clear(self) -> None:
        self.signal(signal.SIGKILL)
        await self._process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                while self._group_exists():  # noqa: ASYNC110  (the kernel has no event for an empty group)
                    await asyncio.sleep(0.01)

    def _group_exists(self) -> bool:
        with suppress(ChildProcessError):
            while os.waitpid(-self.pid, os.WNOHANG) != (0, 0):  # the leader is reaped: these are adopted
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
