"""Programs from Debian's packages, for the suites that need them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence


def install(programs: Sequence[str], packages: Sequence[str], path: str | None = None) -> None:
    """Make sure that `programs` are on `path`, by default the PATH.

    Ends the process with what to do where they cannot be had.
    """
    missing = " and ".join(program for program in programs if not shutil.which(program, path=path))
    if not missing:
        return
    by_hand = f"Put {missing} on the PATH; on Debian: apt-get install {' '.join(packages)}."
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"{missing}: missing, and only root can install it, with apt-get. {by_hand}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *packages]):
        run = subprocess.run(["apt-get", *command], env=environment, check=False)
        if run.returncode:
            sys.exit(f"apt-get {' '.join(command)} ended with {run.returncode}. {by_hand}")
