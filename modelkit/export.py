"""What both exporters share: the job they are given and the results they leave. Runs in the worker environments.

work/<form>/    the files of an export form
work/result.json   {"form": the form to package, "candidates_ms": {form: milliseconds a picture},
                    "compiled_by": what a compiled form runs with, or null}
work/outputs.npz   the packaged form's outputs for every picture
work/outputs-fp32.npz   of a packaged form in 16 bits: what the same network says in 32
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from modelkit import network
from modelkit.network import Network

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Precision = Literal["fp32", "bf16", "fp16"]  # that of modelkit.spec, which needs pydantic
Run = Callable[[Bytes], Mapping[str, npt.NDArray[Any]]]
BATCHES = (1, 3, 8)
"""The sizes of batch that the pictures are run in, in turn: an artifact in which the batch is not free fails here."""


@dataclass(frozen=True)
class Job:
    network: Network
    pictures: Bytes
    work: Path
    precision: Precision
    compile: bool
    """Whether a compiled form is to be tried besides."""

    @classmethod
    def from_arguments(cls) -> Job:
        """The job of this process's command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--network", type=Path, required=True, help="folder with network.json")
        parser.add_argument("--pictures", type=Path, required=True, help=".npy of input tensors, uint8 [n, h, w, 3]")
        parser.add_argument("--work", type=Path, required=True, help="an empty folder for the results")
        parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
        parser.add_argument("--compile", action="store_true", help="try a compiled form besides")
        given = parser.parse_args()
        return cls(
            network.read(given.network), np.load(given.pictures), given.work, given.precision, compile=given.compile
        )

    def finish(
        self,
        form: str,
        candidates_ms: Mapping[str, float],
        run: Run,
        in_fp32: Run | None = None,
        compiled_by: str | None = None,
    ) -> None:
        """Run all pictures through the packaged form, and the one it is held against, and leave the results in the work
        folder."""
        np.savez(self.work / "outputs.npz", **self._outputs(run))  # type: ignore[arg-type]
        if in_fp32 is not None:
            np.savez(self.work / "outputs-fp32.npz", **self._outputs(in_fp32))  # type: ignore[arg-type]
        result = {"form": form, "candidates_ms": dict(candidates_ms), "compiled_by": compiled_by}
        (self.work / "result.json").write_text(json.dumps(result))

    def _outputs(self, run: Run) -> dict[str, npt.NDArray[Any]]:
        answers: list[Mapping[str, npt.NDArray[Any]]] = []
        start = 0
        for size in itertools.cycle(BATCHES):
            batch = self.pictures[start : start + size]
            if not len(batch):
                break
            answers.append(run(batch))
            start += size
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
