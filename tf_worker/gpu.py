"""`python -m tf_worker.gpu`: whether TensorFlow can compute on a GPU here.

It writes a line of JSON: the GPUs' names, or a reason.
"""

from __future__ import annotations

import json
import sys

import tensorflow as tf


def main() -> None:
    gpus: list[str] = []
    reason = ""
    try:
        found = tf.config.list_physical_devices("GPU")
        if not found:
            raise RuntimeError("it finds no GPU, or not all of its CUDA libraries")
        for gpu in found:
            tf.config.experimental.set_memory_growth(gpu, True)
        with tf.device("GPU:0"):
            sums = tf.nn.conv2d(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 1)), strides=1, padding="VALID")
        if not bool(tf.reduce_all(sums == 27)):
            raise RuntimeError("its convolution of ones gives wrong sums")
        gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in found]
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    sys.stdout.write(f"{json.dumps({'gpus': gpus, 'reason': reason})}\n")


if __name__ == "__main__":
    main()
