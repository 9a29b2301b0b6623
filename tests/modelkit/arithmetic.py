"""In what arithmetic an artifact keeps its kernels: `python arithmetic.py ARTIFACT`, in the environment of its runtime.

Prints, as JSON, how many convolutions there are by the type of their kernels, and the types of the outputs.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main(artifact: str) -> None:
    if Path(artifact).is_dir():
        import tensorflow as tf

        function = tf.saved_model.load(artifact).signatures["serving_default"]
        graph = function.graph.as_graph_def()
        nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
        found = Counter(tf.as_dtype(node.attr["T"].type).name for node in nodes if node.op == "Conv2D")
        outputs = {name: each.dtype.name for name, each in function.structured_outputs.items()}
    else:
        import torch

        module = torch.jit.load(artifact)
        graph = module.inlined_graph  # to be kept: nodes do not keep their graph
        kernels = [list(node.inputs())[1] for node in graph.findAllNodes("aten::_convolution")]
        found = Counter(str(each.toIValue().dtype).removeprefix("torch.") for each in kernels)
        image = torch.zeros((1, 32, 32, 3), dtype=torch.uint8)
        outputs = {name: str(each.dtype).removeprefix("torch.") for name, each in module(image).items()}
    sys.stdout.write(json.dumps({"kernels": found, "outputs": outputs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
