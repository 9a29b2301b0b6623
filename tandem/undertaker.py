"""Ends what a supervisor left behind when it was killed: `python undertaker.py MARK`, one for each supervisor.

It reads its standard input, a pipe whose other end only the supervisor holds, to the end. That comes when the
supervisor is gone, however it went. Then every process whose environment has `TANDEM_SUPERVISOR=MARK` is killed.
After an orderly stop there is none. Standard library only, to be small.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TANDEM_SUPERVISOR"


def marked(mark: str) -> list[int]:
    """The processes started with that mark in their environment, and their descendants that kept it."""
    entry = f"{VARIABLE}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # gone, or someone else's
            continue
    return found


def kill_marked(mark: str, give_up_s: float = 5.0) -> list[int]:
    """Kill them until none is left. Returns the process ids that were found."""
    killed: set[int] = set()
    until = time.monotonic() + give_up_s
    while (pids := marked(mark)) and time.monotonic() < until:
        for pid in pids:
            killed.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return sorted(killed)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1])


if __name__ == "__main__":
    main()
