"""Runs an artifact as its worker does: `python ask.py ARTIFACT INPUTS.npy OUTPUTS.npz`.

In the environment of its runtime: an artifact that is a file is TorchScript, a folder is a SavedModel.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(artifact: str, inputs: str, answers: str) -> None:
    images = np.load(inputs)
    if Path(artifact).is_dir():
        import tensorflow as tf

        model = tf.saved_model.load(artifact)
        outputs = model.signatures["serving_default"](image=tf.constant(images))
    else:
        import torch

        module = torch.jit.load(artifact)
        outputs = module(torch.from_numpy(images))
        graph = module.inlined_graph
        kinds = {node.output().type().kind() for node in graph.findAllNodes("prim::Constant")}
        assert "DeviceObjType" not in kinds, "the module is tied to a device"
    np.savez(answers, **{name: tensor.numpy() for name, tensor in outputs.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
