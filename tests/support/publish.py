"""Put a copy of a package into a store: `python -m tests.support.publish PACKAGE STORE VIEW`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from modelkit import lifecycle

if __name__ == "__main__":
    package, store, view = map(Path, sys.argv[1:])
    with lifecycle.staging(store) as folder:
        shutil.copytree(package, folder / "package")
        lifecycle.publish(folder / "package", store, view, lambda _: None)
