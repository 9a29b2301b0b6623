"""Makes everything in this folder that is made: `.venv/bin/python -m models.digits.train` (about ten minutes, 2 cores).

digits.weights.h5   the served network's weights
held_out.npz        the scans that it was not trained on
samples/            pictures to upload, of held-out scans
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from modelkit import children
from models.digits import data
from models.digits.recipe import RECIPE

SAMPLES = Path(__file__).with_name("samples")
SIDE = 256
JPEGS = (2, 4, 7)
"""Digits of which there is a JPEG as well, of another scan."""


def main() -> None:
    children.end_on_sigterm()
    train, held_out = data.split()
    np.savez_compressed(RECIPE.held_out, pictures=held_out.pictures, labels=held_out.labels)
    write_samples(held_out, SAMPLES)
    with tempfile.TemporaryDirectory(prefix="tandem-digits-") as temporary:
        _say("making the training pictures …")
        images, labels = data.augmented(train)
        path = Path(temporary) / "train.npz"
        np.savez(path, images=images, labels=labels)
        _say(f"training on {len(labels)} pictures …")
        children.run("tf", "models.digits.fit", f"--data={path}", f"--weights={RECIPE.weights}")
    _say(f"{RECIPE.weights} is made; `python -m modelkit build` measures its accuracy on the held-out pictures")


def write_samples(scans: data.Scans, folder: Path) -> None:
    """A PNG of each digit, and JPEGS: the scans of a digit that are most like all scans of it."""
    folder.mkdir(exist_ok=True)
    for digit in range(10):
        own = scans.pictures[scans.labels == digit].astype(float)
        typical = np.argsort(((own - own.mean(axis=0)) ** 2).sum(axis=(1, 2)))
        _enlarged(own[typical[0]]).save(folder / f"{digit}.png", optimize=True)
        if digit in JPEGS:
            _enlarged(own[typical[1]]).convert("RGB").save(folder / f"{digit}.jpg", quality=90)


def _enlarged(scan: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray(scan.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
