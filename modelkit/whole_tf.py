"""Entrance, network and head as one TensorFlow function, as in whole_torch.py. Runs in the worker's environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from modelkit.network import Entrance, Head

Outputs = dict[str, tf.Tensor]


def whole(network: Callable[[tf.Tensor], Any], entrance: Entrance | None, head: Head | None) -> Callable[..., Outputs]:
    """`image: uint8 [batch, height, width, 3]` → the outputs of model.yaml. The network reads channels-last floats."""

    def infer(image: tf.Tensor) -> Outputs:
        x = image if entrance is None else _enter(image, entrance)
        raw = network(x)
        return dict(raw) if head is None else outputs_of(raw, head)

    return infer


def _enter(image: tf.Tensor, entrance: Entrance) -> tf.Tensor:
    # One multiplication and one addition: (x / 255 - mean) / std.
    std, mean = np.array(entrance.std, dtype=np.float64), np.array(entrance.mean, dtype=np.float64)
    x = tf.reverse(image, [-1]) if entrance.bgr else image
    return tf.cast(x, tf.float32) * (1 / (255 * std)).astype(np.float32) + (-mean / std).astype(np.float32)


def outputs_of(raw: Any, head: Head) -> Outputs:
    """The outputs of model.yaml, of what the network returned."""
    if head.kind == "scores":
        scores = _only(raw)
        if head.activation == "softmax":
            scores = tf.nn.softmax(scores)
        elif head.activation == "sigmoid":
            scores = tf.sigmoid(scores)
        return {"scores": scores}
    boxes, scores, coefficients, prototypes = _dense(raw, head)
    count = min(head.top_k, int(boxes.shape[1]))
    best, anchor = tf.math.top_k(tf.reduce_max(scores, axis=2), count)
    if head.pairs:
        classes = int(scores.shape[2])
        per_anchor = tf.gather(scores, anchor, axis=1, batch_dims=1)
        best, index = tf.math.top_k(tf.reshape(per_anchor, [-1, count * classes]), count)
        anchor = tf.gather(anchor, index // classes, axis=1, batch_dims=1)
        kind = index % classes
        candidate = anchor * classes + kind
    else:
        kind = tf.argmax(tf.gather(scores, anchor, axis=1, batch_dims=1), axis=2, output_type=tf.int32)
        candidate = anchor
    outputs = {
        "boxes": tf.gather(boxes, anchor, axis=1, batch_dims=1),
        "scores": best,
        "classes": tf.cast(kind, tf.float32),
        "candidates": tf.cast(candidate, tf.float32),
    }
    if coefficients is not None:
        outputs["coefficients"] = tf.gather(coefficients, anchor, axis=1, batch_dims=1)
        outputs["prototypes"] = prototypes
    return outputs


def _dense(raw: Any, head: Head) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None, tf.Tensor | None]:
    """Boxes as corners, class scores, mask coefficients and prototypes."""
    coefficients = prototypes = None
    if isinstance(raw, Mapping):
        boxes, scores = raw["boxes"], raw["class_scores"]
    else:
        rows, *rest = raw if isinstance(raw, list | tuple) else [raw]
        rows = tf.transpose(rows, [0, 2, 1])
        boxes, scores = rows[..., :4], rows[..., 4 : 4 + head.classes]
        if head.masks:
            coefficients, prototypes = rows[..., 4 + head.classes :], rest[0]
    if head.box == "xywh":
        centre, size = boxes[..., :2], boxes[..., 2:]
        boxes = tf.concat([centre - size / 2, centre + size / 2], axis=-1)
    return boxes, scores, coefficients, prototypes


def _only(raw: Any) -> tf.Tensor:
    if isinstance(raw, Mapping):
        (raw,) = raw.values()
    elif isinstance(raw, list | tuple):
        (raw,) = raw
    return raw
