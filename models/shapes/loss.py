"""What the network is trained towards: which candidate stands for which shape, and how wrong it is. TensorFlow only.

Candidates are assigned anew in each step, by how well they do already (task-aligned assignment: Feng et al., TOOD,
2021, https://arxiv.org/abs/2108.07755), and boxes are compared by generalised intersection over union (Rezatofighi et
al., 2019, https://arxiv.org/abs/1902.09630).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

CANDIDATES_OF_A_SHAPE = 10
SCORE_EXPONENT, IOU_EXPONENT = 0.5, 6.0
BOX_WEIGHT = 2.5
_TINY = 1e-9


class Truth(NamedTuple):
    """Shapes of a batch, padded with boxes without area."""

    boxes: tf.Tensor
    """float32 `[batch, shapes, 4]`: x1, y1, x2, y2 in pixels of the input tensor."""
    classes: tf.Tensor
    """int32 `[batch, shapes]`."""


class Assignment(NamedTuple):
    scores: tf.Tensor
    """float32 `[batch, candidates, classes]`: what the class scores are to become; 0 for candidates of no shape."""
    boxes: tf.Tensor
    """float32 `[batch, candidates, 4]`: of the shape that the candidate stands for."""


def overlap(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """IoU and generalised IoU of boxes `[…, 4]`, which broadcast against each other."""
    corner, opposite = tf.maximum(first[..., :2], second[..., :2]), tf.minimum(first[..., 2:], second[..., 2:])
    shared = tf.reduce_prod(tf.maximum(opposite - corner, 0), axis=-1)
    areas = [tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1) for boxes in (first, second)]
    union = areas[0] + areas[1] - shared
    corner, opposite = tf.minimum(first[..., :2], second[..., :2]), tf.maximum(first[..., 2:], second[..., 2:])
    hull = tf.reduce_prod(opposite - corner, axis=-1)
    iou = shared / (union + _TINY)
    return iou, iou - (hull - union) / (hull + _TINY)


def assign(boxes: tf.Tensor, scores: tf.Tensor, middles: tf.Tensor, truth: Truth) -> Assignment:
    """Each shape gets the candidates that do best of those whose middle is in its box; of two shapes, the one that the
    candidate overlaps more. The best candidate of a shape is to score its own IoU, the others less."""
    candidates, classes = boxes.shape[1], scores.shape[2]
    iou, _ = overlap(truth.boxes[:, :, tf.newaxis], boxes[:, tf.newaxis])  # [batch, shapes, candidates]
    of_class = tf.gather(tf.transpose(scores, (0, 2, 1)), truth.classes, batch_dims=1)
    inside = tf.reduce_all(
        (middles[:, tf.newaxis, :, :2] > truth.boxes[:, :, tf.newaxis, :2])
        & (middles[:, tf.newaxis, :, :2] < truth.boxes[:, :, tf.newaxis, 2:]),
        axis=-1,
    )
    quality = tf.where(inside, of_class**SCORE_EXPONENT * iou**IOU_EXPONENT, 0)
    # A candidate far off at the start still has its place in the order.
    order = tf.where(inside, quality + _TINY * (1 + iou), 0)
    least = tf.math.top_k(order, CANDIDATES_OF_A_SHAPE).values[..., -1:]
    chosen = inside & (order >= least)
    owner = tf.argmax(tf.where(chosen, iou, -1), axis=1, output_type=tf.int32)  # [batch, candidates]
    chosen &= tf.one_hot(owner, tf.shape(iou)[1], axis=1, on_value=True, off_value=False, dtype=tf.bool)
    quality, iou = tf.where(chosen, quality, 0), tf.where(chosen, iou, 0)
    share = quality / (tf.reduce_max(quality, axis=2, keepdims=True) + _TINY)
    wanted = tf.reduce_sum(share * tf.reduce_max(iou, axis=2, keepdims=True), axis=1)
    labels = tf.one_hot(tf.gather(truth.classes, owner, batch_dims=1), classes)
    targets = tf.gather(truth.boxes, owner, batch_dims=1)
    return Assignment(wanted[..., tf.newaxis] * labels, tf.ensure_shape(targets, (None, candidates, 4)))


def loss(boxes: tf.Tensor, logits: tf.Tensor, middles: tf.Tensor, truth: Truth) -> tf.Tensor:
    """The mean loss of a batch, a number, for each unit of score that is wanted in it."""
    assignment = assign(tf.stop_gradient(boxes), tf.stop_gradient(tf.sigmoid(logits)), middles, truth)
    weights = tf.reduce_sum(assignment.scores, axis=-1)
    total = tf.maximum(tf.reduce_sum(weights), 1)
    classes = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(assignment.scores, logits))
    _, generalised = overlap(boxes, assignment.boxes)
    return (classes + BOX_WEIGHT * tf.reduce_sum(weights * (1 - generalised))) / total
