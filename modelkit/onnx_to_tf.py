"""`network.onnx` → a SavedModel of constants, float [batch, height, width, 3] → the network's outputs in order.

Runs in the conversion environment: `python -m modelkit.onnx_to_tf --network FOLDER`. The result is held against ONNX
Runtime before it is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from modelkit import network
from modelkit.onnx_tf import graph
from modelkit.sources.common import refuse

TOLERANCE = 1e-3
"""Greatest difference to ONNX Runtime, as a fraction of the greatest value."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", type=Path, required=True)
    folder = parser.parse_args().network.resolve()
    found = network.read(folder)
    try:
        _convert(folder / "network.onnx", folder / "network-tf", found.height, found.width)
    except (graph.Unsupported, ValueError, tf.errors.OpError) as error:
        refuse(
            f"The network cannot be converted to TensorFlow: {str(error).splitlines()[0]}. Convert it by hand and give"
            " both artifacts with --torch and --tf.",
            folder,
        )


def _convert(source: Path, target: Path, height: int, width: int) -> None:
    model = onnx.load(source)
    graph.check(model)
    picture = np.random.default_rng(0).random((2, 3, height, width), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: picture})
    names = [f"output_{number:02}" for number in range(len(wanted))]

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec((None, height, width, 3), tf.float32, name="image")], autograph=False
    )
    def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = graph.run(model, image)
        for output, array in zip(outputs, wanted, strict=True):
            output.set_shape((None, *array.shape[1:]))
        return dict(zip(names, outputs, strict=True))

    found = infer(tf.constant(picture.transpose(0, 2, 3, 1)))
    for name, array in zip(names, wanted, strict=True):
        _check(name, found[name].numpy(), array)
    tf.saved_model.save(tf.Module(), str(target), signatures={"serving_default": infer})


def _check(name: str, found: Any, wanted: Any) -> None:
    """Raises ValueError where TensorFlow and ONNX Runtime do not say the same."""
    greatest = float(np.abs(wanted).max()) or 1.0
    difference = float(np.abs(found - wanted).max()) / greatest
    if not difference <= TOLERANCE:
        raise ValueError(
            f"its {name} differs by {difference:.2g} of its greatest value from what ONNX Runtime computes"
        )


if __name__ == "__main__":
    main()
