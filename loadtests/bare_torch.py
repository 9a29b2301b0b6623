"""A package's TorchScript in a loop, without a server. Runs in the torch worker's environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from loadtests import bare


def load(artifact: Path, threads: int) -> bare.Run:
    torch.set_num_threads(threads)
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    module = torch.jit.load(str(artifact / "model.pt"), map_location="cpu").eval()

    def run(images: npt.NDArray[Any]) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(images))

    return run


if __name__ == "__main__":
    bare.main(load)
