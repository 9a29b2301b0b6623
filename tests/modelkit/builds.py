"""Running `python -m modelkit build`, and what it leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelkit.children import ROOT, python
from modelkit.predictions import Outputs
from modelkit.spec import ModelSpec, RuntimeName, read


class Built(NamedTuple):
    store: Path
    serving: Path
    output: str
    """What the build said."""

    @property
    def package(self) -> Path:
        """That of the digits."""
        return self.store / "digits" / "1"

    @property
    def spec(self) -> ModelSpec:
        return read(self.package)

    def ask(self, model: str, runtime: RuntimeName, tensors: npt.NDArray[np.uint8], folder: Path) -> Outputs:
        """What the artifact that is served of `model` says about `tensors`, asked in the environment of its worker."""
        artifact = {
            "torch": self.store / model / "1" / "torch" / "model.pt",
            "tf": self.serving / "tf" / model / "1",
        }[runtime]
        inputs, answers = folder / "inputs.npy", folder / f"{runtime}.npz"
        np.save(inputs, tensors)
        done = subprocess.run(
            [python(runtime), ROOT / "tests" / "modelkit" / "ask.py", artifact, inputs, answers],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with np.load(answers) as outputs:
            return dict(outputs)


def run_build(store: Path, serving: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelkit", "build", "--store", store, "--serving", serving],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
