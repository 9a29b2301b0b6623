"""Fits the network. Runs in the TensorFlow worker's environment; `models.shapes.train` starts it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.shapes.architecture import LOGITS, SIDE, build, fold, grids
from models.shapes.loss import Truth, loss

SEED = 7
EPOCHS = 12
BATCH = 16
LEARNING_RATE = 2e-3
_MIRRORED_X, _OTHER_WAY_X = np.array([[SIDE, 0, SIDE, 0], [-1, 1, -1, 1]], dtype=np.float32)
_MIRRORED_Y, _OTHER_WAY_Y = np.array([[0, SIDE, 0, SIDE], [1, -1, 1, -1]], dtype=np.float32)


class Scenes(NamedTuple):
    images: npt.NDArray[np.uint8]
    """`[n, 160, 160, 3]`."""
    boxes: npt.NDArray[np.float32]
    """`[n, shapes, 4]`, x1, y1, x2, y2; boxes without area fill it up."""
    classes: npt.NDArray[np.int32]
    """`[n, shapes]`."""


def batches(scenes: Scenes, rng: np.random.Generator) -> Iterator[Scenes]:
    """One epoch in random order, each batch mirrored, turned and with its colours exchanged in a way of its own."""
    order = rng.permutation(len(scenes.images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        some = order[start : start + BATCH]
        images, boxes = scenes.images[some][..., rng.permutation(3)], scenes.boxes[some]
        if rng.random() < 0.5:
            images, boxes = images[:, :, ::-1], _MIRRORED_X + boxes[..., [2, 1, 0, 3]] * _OTHER_WAY_X
        if rng.random() < 0.5:
            images, boxes = images[:, ::-1], _MIRRORED_Y + boxes[..., [0, 3, 2, 1]] * _OTHER_WAY_Y
        if rng.random() < 0.5:
            images, boxes = images.transpose(0, 2, 1, 3), boxes[..., [1, 0, 3, 2]]
        yield Scenes(np.ascontiguousarray(images), boxes, scenes.classes[some])


def main() -> None:
    """Train on the scenes of `--data` and save the served network's weights as `--weights`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help=".npz with `images`, `boxes` and `classes`")
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    with np.load(arguments.data) as data:
        scenes = Scenes(data["images"], data["boxes"], data["classes"])

    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = build("channels_last", training=True)
    network = keras.Model(model.input, [model.output["boxes"], model.get_layer(LOGITS).output])
    steps = EPOCHS * (len(scenes.images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 20, steps, warmup_target=LEARNING_RATE, warmup_steps=steps // 20
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-2, clipnorm=10.0)
    optimizer.build(network.trainable_variables)
    middles = tf.constant(grids()[0])

    def step(images: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            found, logits = network(images, training=True)
            value = loss(found, logits, middles, Truth(boxes, classes))
        gradients = tape.gradient(value, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return value

    compiled = tf.function(step)
    for epoch in range(EPOCHS):
        start = time.monotonic()
        values = [float(compiled(*batch)) for batch in batches(scenes, rng)]
        sys.stdout.write(f"epoch {epoch + 1}: loss {np.mean(values):.4f}, {time.monotonic() - start:.0f} s\n")
        sys.stdout.flush()
    fold(model).save_weights(arguments.weights)


if __name__ == "__main__":
    main()
