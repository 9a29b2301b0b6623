"""The other half of a pair: a SavedModel of the network of torch_digits.py, converted by hand. In `.venv-tf`.

    python tf_pair.py digits.npz FOLDER [FAULT]

FAULT: with a mistake that people make: `flatten`, which reads the channels in the other order; `colours`, red and blue
swapped; `mean`, another one; `resize`, pictures scaled once more inside.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf


def main(weights: str, target: str, fault: str = "") -> None:
    with np.load(weights) as data:
        held = {name: tf.constant(data[name]) for name in data if data[name].dtype == np.float32}

    def kernel(name: str) -> Any:
        return tf.transpose(held[name], (2, 3, 1, 0))

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec((None, 24, 24, 3), tf.uint8, name="image")]
    )
    def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        if fault == "colours":
            image = tf.reverse(image, [-1])
        x = (tf.cast(image, tf.float32) / 255 - (0.45 if fault == "mean" else 0.5)) / 0.25
        if fault == "resize":
            x = tf.image.resize(tf.image.resize(x, (20, 20)), (24, 24))
        x = tf.nn.conv2d(x, kernel("0.weight"), 1, "SAME")
        norm = [held[f"1.{name}"] for name in ("running_mean", "running_var", "bias", "weight")]
        x = tf.nn.relu(tf.nn.batch_normalization(x, *norm, 1e-5))
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        halves = zip(tf.split(x, 2, -1), tf.split(kernel("4.weight"), 2, -1), strict=True)
        x = tf.concat([tf.nn.conv2d(part, each, 2, "VALID") for part, each in halves], -1)
        x = tf.nn.silu(x + held["4.bias"])
        x = tf.reshape(x if fault == "flatten" else tf.transpose(x, (0, 3, 1, 2)), [-1, 24 * 36])
        return {"scores": tf.nn.softmax(x @ tf.transpose(held["7.weight"]) + held["7.bias"])}

    tf.saved_model.save(tf.Module(), target, signatures={"serving_default": infer})


if __name__ == "__main__":
    main(*sys.argv[1:])
