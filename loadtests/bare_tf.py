"""A package's SavedModel in a loop, without a server. Runs in the TensorFlow worker's environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from loadtests import bare


def load(artifact: Path, threads: int) -> bare.Run:
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(artifact))
    signature = loaded.signature_def["serving_default"]
    outputs = [tensor.name for tensor in signature.outputs.values()]
    run = session.make_callable(outputs, feed_list=[signature.inputs["image"].name])

    def call(images: npt.NDArray[Any]) -> object:
        return run(images)

    return call


if __name__ == "__main__":
    bare.main(load)
