"""Asks the network about input tensors. Runs in a worker environment; `models.shapes.evaluate` starts it."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

from models.shapes.architecture import build

BATCH = 50


def main() -> None:
    """Write what the network of `--weights` says about `--images` as the .npz `--answers`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help=".npy, uint8 [n, 160, 160, 3]")
    parser.add_argument("--answers", type=Path, required=True)
    arguments = parser.parse_args()
    model = build("channels_first" if keras.backend.backend() == "torch" else "channels_last")
    model.load_weights(arguments.weights)
    images = np.load(arguments.images)
    batches = [model(images[start : start + BATCH], training=False) for start in range(0, len(images), BATCH)]
    answers = {
        name: np.concatenate([keras.ops.convert_to_numpy(each[name]) for each in batches]) for name in batches[0]
    }
    np.savez(arguments.answers, **answers)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
