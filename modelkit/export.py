"""What both exporters share: the job they are given and the results they leave. Runs in the worker environments.

work/<form>/    the files of an export form
work/result.json   {"form": the form to package, "candidates_ms": {form: milliseconds a picture}}
work/outputs.npz   the packaged form's outputs for every picture
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelkit import network
from modelkit.network import Network

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
BATCHES = (1, 3, 8)
"""The sizes of batch that the pictures are run in, in turn: an artifact in which the batch is not free fails here."""


@dataclass(frozen=True)
class Job:
    network: Network
    pictures: Bytes
    work: Path

    @classmethod
    def from_arguments(cls) -> Job:
        """The job of this process's command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--network", type=Path, required=True, help="folder with network.json")
        parser.add_argument("--pictures", type=Path, required=True, help=".npy of input tensors, uint8 [n, h, w, 3]")
        parser.add_argument("--work", type=Path, required=True, help="an empty folder for the results")
        given = parser.parse_args()
        return cls(network.read(given.network), np.load(given.pictures), given.work)

    def finish(
        self,
        form: str,
        candidates_ms: Mapping[str, float],
        run: Callable[[Bytes], Mapping[str, npt.NDArray[Any]]],
    ) -> None:
        """Run all pictures through the packaged form and leave the results in the work folder."""
        answers: list[Mapping[str, npt.NDArray[Any]]] = []
        start = 0
        for size in itertools.cycle(BATCHES):
            batch = self.pictures[start : start + size]
            if not len(batch):
                break
            answers.append(run(batch))
            start += size
        outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        np.savez(self.work / "outputs.npz", **outputs)  # type: ignore[arg-type]
        (self.work / "result.json").write_text(json.dumps({"form": form, "candidates_ms": dict(candidates_ms)}))
