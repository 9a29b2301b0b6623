"""`publish` or `remove` in a process that dies at a chosen step: `python -m tests.faults.dying STEP publish …`.

A step is anything that changes a file or a folder: the process is killed just before the step of that number.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from modelkit import children, lifecycle
from modelkit.children import EnvironmentName
from torch_worker.archive import build_archive

_CHANGES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate", "shutil.copyfile"}


def die_at(step: int, below: Path) -> None:
    """Kill this process before its change number `step` of what is in the folder `below`."""
    done = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in _CHANGES or writes) and any(str(below) in str(each) for each in arguments):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def pack_here(environment: EnvironmentName, module: str, *arguments: str) -> None:
    """The packing of an archive, in this process: it can die in the middle of that too."""
    options = dict(each.split("=", 1) for each in arguments)
    build_archive(
        Path(options["--package"]),
        Path(options["--serving"]),
        batch_size=int(options["--batch-size"]),
        max_batch_delay_ms=int(options["--max-batch-delay-ms"]),
    )


def main() -> None:
    step, largest_file, what, *rest = sys.argv[1:]
    children.run = pack_here
    if int(largest_file):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing more is then an error, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
    if what == "publish":
        package, store, view = map(Path, rest)
        die_at(int(step), store.parent)
        lifecycle.publish(package, store, view, lambda _: None)
    else:
        store, view = map(Path, rest)
        die_at(int(step), store.parent)
        lifecycle.remove(store, view, "digits", 2)


if __name__ == "__main__":
    main()
