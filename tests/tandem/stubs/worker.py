"""Stands for a worker: `worker.py NAME [option…]`. It says on its standard output what it does, and waits to be ended.

stubborn   ignores SIGTERM
family     has a child, a grandchild, and a child in a session of its own; all of them ignore SIGTERM
dies       ends at once with status 7
orphans    as family, but ends once they run
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def with_descendants() -> None:
    """Returns when all of them ignore SIGTERM."""
    for session in (False, True):
        child = subprocess.Popen(
            [sys.executable, "-S", __file__, "child", "stubborn", *([] if session else ["grandchild"])],
            start_new_session=session,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()


def main() -> None:
    name, *options = sys.argv[1:]
    if "dies" in options:
        sys.exit(7)
    # Blocked, and waited for at the end: none comes too early, none is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if "grandchild" in options:
        child = subprocess.Popen([sys.executable, "-S", __file__, "x", "stubborn"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
    if "family" in options or "orphans" in options:
        with_descendants()
    say(f"{name} started {os.getpid()}")
    if "orphans" in options:
        sys.exit(8)
    while True:
        signal.sigwait({signal.SIGTERM})
        if order := os.environ.get("ORDER"):
            with Path(order).open("a") as file:
                file.write(f"{name}\n")
        if "stubborn" not in options:
            return


if __name__ == "__main__":
    main()
