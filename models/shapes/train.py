"""Makes everything in this folder that is made: `.venv/bin/python -m models.shapes.train` (about a quarter of an hour, 2
cores).

shapes.weights.h5   the served network's weights
samples/            scenes to upload that it was not trained on
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from gateway.images.geometry import Geometry
from gateway.images.preprocess import fit
from models.shapes.recipe import INPUT
from models.shapes.scenes import MAX_SHAPES, draw

TRAINING = range(6000)
"""Seeds of the scenes to train with. Those that are held out begin at a million."""


def write_tensors(seeds: range, path: Path) -> None:
    """The scenes as the network is given them: `images` uint8 `[n, 160, 160, 3]`, `boxes` in their pixels, `classes`."""
    images = np.empty((len(seeds), INPUT.height, INPUT.width, 3), dtype=np.uint8)
    boxes = np.zeros((len(seeds), MAX_SHAPES, 4), dtype=np.float32)
    classes = np.zeros((len(seeds), MAX_SHAPES), dtype=np.int32)
    for row, seed in enumerate(seeds):
        scene = draw(seed)
        geometry = Geometry.of(scene.picture.size, INPUT)
        images[row] = fit(scene.picture, INPUT, geometry)[0]
        scale = np.array([geometry.scale_x, geometry.scale_y] * 2)
        boxes[row, : len(scene.boxes)] = scene.boxes * scale + [geometry.left, geometry.top] * 2
        classes[row, : len(scene.classes)] = scene.classes
    np.savez(path, images=images, boxes=boxes, classes=classes)
