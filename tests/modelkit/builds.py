"""Running `python -m modelkit build`, and what it leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from modelkit.children import ROOT
from modelkit.spec import ModelSpec, read


class Built(NamedTuple):
    store: Path
    serving: Path
    output: str
    """What the build said."""

    @property
    def package(self) -> Path:
        return self.store / "digits" / "1"

    @property
    def spec(self) -> ModelSpec:
        return read(self.package)


def run_build(store: Path, serving: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelkit", "build", "--store", store, "--serving", serving],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
