"""`--torch A --tf B`: artifacts that the user converted. Runs in the TensorFlow worker's environment.

It reads B. A is read by the exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from modelkit.network import Head, Network
from modelkit.sources.common import Refusal, Request, read_labels, run


def read(request: Request) -> None:
    signature = _signature(Path(request.tf))
    (argument,) = signature.structured_input_signature[1].values()
    shape = argument.shape.as_list() if argument.shape.rank is not None else None
    if shape is None or len(shape) != 4 or shape[3] != 3:
        raise Refusal(f"The SavedModel's input is {shape}; [batch, height, width, 3] is needed.")
    if shape[0] is not None:
        raise Refusal(f"The SavedModel takes batches of {shape[0]} only; export it with a free batch dimension.")
    height, width = (shape[1], shape[2]) if None not in shape[1:3] else request.size_wanted()
    whole = argument.dtype == tf.uint8
    if not whole and argument.dtype != tf.float32:
        raise Refusal(f"The SavedModel takes {argument.dtype.name}; uint8 pictures or normalised float32 are needed.")
    outputs = dict(signature.structured_outputs)
    named = "boxes" in outputs
    task = request.task or ("classify" if not named else "segment" if "prototypes" in outputs else "detect")
    facts: dict[str, Any] = {
        "task": task,
        "input": request.input(),
        "licence": request.licence,
        "source": f"{Path(request.torch).name} and {Path(request.tf).name}, converted by their user",
    }
    head = None
    if task == "classify":
        if len(outputs) != 1 or next(iter(outputs.values())).shape.rank != 2:
            raise Refusal(
                f"The SavedModel returns {sorted(outputs)}; a classifier's one tensor [batch, classes] is needed."
            )
        (scores,) = outputs.values()
        activation = request.activation
        if activation is None:
            raise Refusal(
                "Say whether the outputs are logits or scores: --activation softmax or sigmoid makes scores of them,"
                " --activation none leaves them."
            )
        head = Head("scores", activation=activation)
        facts |= {
            "labels": request.labels_wanted(scores.shape[1]),
            "meaning": "softmax" if activation != "sigmoid" else "sigmoid",
        }
    else:
        if request.labels in (None, "numbers"):
            raise Refusal(
                "A detector's tensors do not say how many classes there are: give --labels FILE, one name a line."
            )
        facts |= {
            "labels": read_labels(request.labels),
            "detection": {"nms_iou": 0.7 if request.nms else None, "min_score": 0.25, "max_detections": 300},
        }
    Network(
        torch={"given": str(request.torch)},
        tf={"given": str(request.tf)},
        height=height,
        width=width,
        entrance=None if whole and request.mean is None and request.pixels is None else request.entrance(None),
        head=head,
        facts=facts,
    ).write(request.work)


def _signature(folder: Path) -> Any:
    try:
        saved = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow's own and the file system's
        raise Refusal(f"{folder} cannot be loaded as a SavedModel: {str(error).splitlines()[0]}") from error
    signatures = dict(saved.signatures)
    if "serving_default" not in signatures:
        raise Refusal(f"{folder} has no signature serving_default, only {sorted(signatures)}: export it with one.")
    signature = signatures["serving_default"]
    if len(signature.structured_input_signature[1]) != 1:
        raise Refusal(f"The SavedModel takes {sorted(signature.structured_input_signature[1])}; one picture is needed.")
    signature.saved = saved  # a signature does not keep its model alive
    return signature


if __name__ == "__main__":
    run(read)
