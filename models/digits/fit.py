"""Fits the network. Runs in the TensorFlow worker's environment; `models.digits.train` starts it."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

from models.digits.architecture import build, fold

EPOCHS = 14
BATCH = 64


def main() -> None:
    """Train on the pictures of `--data` and save the served network's weights as `--weights`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help=".npz with `images` and `labels`")
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    with np.load(arguments.data) as data:
        images, labels = data["images"], data["labels"]

    keras.utils.set_random_seed(7)
    model = build("channels_last", training=True)
    steps = EPOCHS * -(-len(labels) // BATCH)
    model.compile(
        optimizer=keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(2e-3, steps), weight_decay=5e-3),
        loss={"scores": keras.losses.CategoricalCrossentropy(label_smoothing=0.02)},
        metrics={"scores": ["accuracy"]},
    )
    targets = keras.utils.to_categorical(labels, 10)
    model.fit(images, {"scores": targets}, batch_size=BATCH, epochs=EPOCHS, shuffle=True, verbose=2)
    fold(model).save_weights(arguments.weights)


if __name__ == "__main__":
    main()
