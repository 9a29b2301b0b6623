"""Makes what is made in this folder: `.venv/bin/python -m models.shapes.train` (about a quarter of an hour, 2 cores).

shapes.weights.h5   the served network's weights
samples/            scenes to upload that it was not trained on
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np

from gateway.images.geometry import Geometry
from gateway.images.preprocess import fit
from modelkit import children
from modelkit.labelled import LabelledPicture
from models.shapes.recipe import RECIPE
from models.shapes.scenes import MAX_SHAPES, TRAINING, draw

SAMPLES = Path(__file__).with_name("samples")
SAMPLES_WRITTEN = 5
SAMPLE_SEEDS = range(2_000_000, 2_001_000)
"""Numbers of the scenes that samples are chosen from."""


def main() -> None:
    children.end_on_sigterm()
    write_samples(SAMPLES)
    with tempfile.TemporaryDirectory(prefix="tandem-shapes-") as temporary:
        _say(f"drawing {len(TRAINING)} scenes …")
        path = Path(temporary) / "train.npz"
        write_tensors(TRAINING, path)
        _say("training …")
        children.run("tf", "models.shapes.fit", f"--data={path}", f"--weights={RECIPE.weights}")
    _say(f"{RECIPE.weights} is made; `python -m models.shapes.evaluate` measures it on the held-out scenes")


def samples() -> list[LabelledPicture]:
    """The first scenes that are large enough and have something in them; what the model says of them plays no part."""
    scenes = (draw(seed) for seed in SAMPLE_SEEDS)
    return list(itertools.islice((scene for scene in scenes if _is_sample(scene)), SAMPLES_WRITTEN))


def _is_sample(scene: LabelledPicture) -> bool:
    width, height = scene.picture.size
    return width > height >= 400 and len(scene.boxes) >= 4


def write_samples(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, scene in enumerate(samples(), start=1):
        scene.picture.save(folder / f"scene-{number}.jpg", quality=80)


def write_tensors(seeds: range, path: Path) -> None:
    """Write an .npz of scenes as the network takes them: `images` uint8 `[n, 160, 160, 3]`, `boxes` in their pixels."""
    images = np.empty((len(seeds), RECIPE.input.height, RECIPE.input.width, 3), dtype=np.uint8)
    boxes = np.zeros((len(seeds), MAX_SHAPES, 4), dtype=np.float32)
    classes = np.zeros((len(seeds), MAX_SHAPES), dtype=np.int32)
    for row, seed in enumerate(seeds):
        scene = draw(seed)
        geometry = Geometry.of(scene.picture.size, RECIPE.input)
        images[row] = fit(scene.picture, RECIPE.input, geometry)[0]
        scale = np.array([geometry.scale_x, geometry.scale_y] * 2)
        boxes[row, : len(scene.boxes)] = scene.boxes * scale + [geometry.left, geometry.top] * 2
        classes[row, : len(scene.classes)] = scene.classes
    np.savez(path, images=images, boxes=boxes, classes=classes)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
