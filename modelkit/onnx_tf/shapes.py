"""Operators that move values and compute nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from modelkit.onnx_tf.value import Value, transposed


def _constant(_inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    ((name, value),) = attributes.items()
    dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return Value(np.asarray(value, dtype=dtype.get(name)))


def _constant_of_shape(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value = attributes.get("value", np.zeros(1, np.float32))
    return Value(tf.fill(inputs[0].held, value.reshape(())))


def _shape(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    """Known where the value's shape is: only the batch is left to a run."""
    value = inputs[0]
    part = slice(attributes.get("start", 0), attributes.get("end"))
    sizes = value.shape[part]
    if None not in sizes:
        return Value(np.array(sizes, dtype=np.int64))
    live = tf.shape(value.held, out_type=tf.int64)
    axes = [value.axis(axis) for axis in range(value.rank)][part]
    return Value(
        tf.stack([live[axis] if size is None else np.int64(size) for axis, size in zip(axes, sizes, strict=True)])
    )


def _known_part(held: Any) -> list[Any] | None:
    """The elements of a one-dimensional tensor that are known while the graph is built; None for the others."""
    found = tf.get_static_value(held, partial=True)
    return None if found is None else [None if each is None else int(each) for each in found]


def _reshape(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, target = inputs
    if not target.known:
        reshaped = tf.reshape(value.plain(), target.held)
        sizes = _known_part(target.held)
        if sizes is not None:
            reshaped.set_shape([None if size in (None, -1, 0) else size for size in sizes])
        return Value(reshaped)
    sizes = [int(size) for size in target.held]
    if not attributes.get("allowzero"):
        for axis, size in enumerate(sizes):
            if size == 0:  # as it was
                sizes[axis] = value.shape[axis]
    if sizes.count(None) == 1 and -1 not in sizes:
        sizes[sizes.index(None)] = -1
    elif None in sizes:
        live = tf.shape(value.plain(), out_type=tf.int64)
        return Value(tf.reshape(value.plain(), tf.stack([live[at] if s is None else s for at, s in enumerate(sizes)])))
    return Value(tf.reshape(value.plain(), sizes))


def _flatten(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, axis = inputs[0], attributes.get("axis", 1)
    sizes = value.shape
    if axis == 1 and None not in sizes[1:]:
        return Value(tf.reshape(value.plain(), [-1, int(np.prod(sizes[1:]))]))  # type: ignore[arg-type]
    live = tf.shape(value.plain())
    return Value(tf.reshape(value.plain(), [tf.reduce_prod(live[:axis]), tf.reduce_prod(live[axis:])]))


def _axes(inputs: list[Value], attributes: dict[str, Any]) -> list[int] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in inputs[1].held]
    return attributes.get("axes")


def _squeeze(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    axes, value = _axes(inputs, attributes), inputs[0]
    if value.last and axes is not None and {axis % 4 for axis in axes} == {2, 3}:
        return Value(tf.squeeze(value.held, [1, 2]))
    return Value(tf.squeeze(value.plain(), axes))


def _unsqueeze(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    held, axes = inputs[0].plain(), _axes(inputs, attributes) or []
    if inputs[0].rank == 0 and len(axes) == 1:
        return Value(tf.stack([held]))  # in which TensorFlow sees a number that it knows
    rank = inputs[0].rank + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        held = tf.expand_dims(held, axis)
    return Value(held)


def _transpose(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    order = attributes.get("perm", list(range(inputs[0].rank))[::-1])
    return transposed(inputs[0], tuple(order))


def _concat(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    if any(value.last for value in inputs):
        held = [value.channels_last() for value in inputs]
        return Value(tf.concat(held, Value(held[0], last=True).axis(attributes["axis"])), last=True)
    return Value(tf.concat([value.held for value in inputs], attributes["axis"]))


def _split(inputs: list[Value], attributes: dict[str, Any], count: int) -> list[Value]:
    value, axis = inputs[0], attributes.get("axis", 0)
    sizes = attributes.get("split")
    if sizes is None and len(inputs) > 1 and inputs[1] is not None:
        sizes = [int(size) for size in inputs[1].held]
    parts = tf.split(value.held, count if sizes is None else sizes, value.axis(axis))
    return [Value(part, value.last) for part in parts]


def _slice(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value = inputs[0]
    if len(inputs) > 1:
        starts, ends = inputs[1], inputs[2]
        axes = inputs[3].held if len(inputs) > 3 and inputs[3] is not None else np.arange(len(starts.held))
        steps = inputs[4].held if len(inputs) > 4 and inputs[4] is not None else np.ones(len(axes), np.int64)
    else:
        starts, ends = Value(np.array(attributes["starts"])), Value(np.array(attributes["ends"]))
        axes = attributes.get("axes", range(len(starts.held)))
        steps = np.ones(len(list(axes)), np.int64)
    parts = [slice(None)] * value.rank
    for place, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        start, end, step = _bound(starts.held[place]), _bound(ends.held[place]), int(step)
        if isinstance(end, int) and ((step > 0 and end >= 2**31 - 1) or (step < 0 and end <= -(2**31 - 1))):
            end = None
        if isinstance(start, int) and step < 0 and start >= 2**31 - 1:
            start = None
        parts[value.axis(int(axis))] = slice(start, end, step)
    if (
        value.rank == 1
        and not value.known
        and all(isinstance(each, int | None) for each in (parts[0].start, parts[0].stop))
    ):
        chosen = (_known_part(value.held) or [None])[parts[0]]
        if chosen and None not in chosen:
            return Value(np.array(chosen, dtype=np.int64))
    return Value(value.held[tuple(parts)], value.last)


def _bound(held: Any) -> Any:
    """A number where it is known. In ONNX, the largest of int64 stands for the end."""
    if isinstance(held, np.generic | np.ndarray):
        return max(min(int(held), 2**31 - 1), -(2**31 - 1))
    return held


def _gather(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, indices = inputs[0], inputs[1].plain()
    axis = attributes.get("axis", 0) % value.rank
    size = value.shape[axis]
    if value.rank == 1 and not value.known and isinstance(indices, np.ndarray):
        sizes = _known_part(value.held)
        chosen = None if sizes is None else [sizes[int(index)] for index in indices.ravel()]
        if chosen is not None and None not in chosen:
            return Value(np.array(chosen, dtype=np.int64).reshape(indices.shape))
    if isinstance(indices, np.ndarray) and size is not None:
        indices = np.where(indices < 0, indices + size, indices)
    return Value(tf.gather(value.plain(), indices, axis=axis))


def _gather_elements(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, indices = inputs[0].plain(), tf.cast(inputs[1].plain(), tf.int32)
    axis = attributes.get("axis", 0) % inputs[0].rank
    last = inputs[0].rank - 1
    order = list(range(last + 1))
    order[axis], order[last] = order[last], order[axis]
    moved = tf.gather(tf.transpose(value, order), tf.transpose(indices, order), axis=last, batch_dims=last)
    return Value(tf.transpose(moved, order))


def _gather_nd(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    dims = attributes.get("batch_dims", 0)
    return Value(tf.gather_nd(inputs[0].plain(), inputs[1].plain(), batch_dims=dims))


def _scatter_nd(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    return Value(tf.tensor_scatter_nd_update(*(value.plain() for value in inputs)))


def _expand(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    value = inputs[0].plain()
    return Value(tf.broadcast_to(value, tf.broadcast_dynamic_shape(tf.shape(value, tf.int64), inputs[1].held)))


def _tile(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    return Value(tf.tile(inputs[0].plain(), inputs[1].held))


def _pad(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value = inputs[0]
    pads = inputs[1].held if len(inputs) > 1 else np.array(attributes["pads"])
    constant = inputs[2].held if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0)
    mode = {"constant": "CONSTANT", "reflect": "REFLECT", "edge": None}[attributes.get("mode", "constant")]
    if mode is None:
        raise ValueError("padding with the edge's values cannot be converted")
    amounts = [[0, 0]] * value.rank
    for axis in range(value.rank):
        amounts[value.axis(axis)] = [int(pads[axis]), int(pads[axis + value.rank])]
    return Value(tf.pad(value.held, amounts, mode, constant_values=np.asarray(constant).item()), value.last)


def _range(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    return Value(tf.range(*(value.held for value in inputs)))


def _top_k(inputs: list[Value], attributes: dict[str, Any], _count: int) -> list[Value]:
    value, count = inputs[0], int(np.asarray(inputs[1].held).item())
    if attributes.get("axis", -1) % value.rank != value.rank - 1 or not attributes.get("largest", 1):
        raise ValueError("only the greatest values along the last axis can be converted (TopK)")
    values, indices = tf.math.top_k(value.plain(), count)
    return [Value(values), Value(tf.cast(indices, tf.int64))]


def _trilu(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    shift = int(inputs[1].held) if len(inputs) > 1 and inputs[1] is not None else 0
    if shift != 0:
        raise ValueError("a shifted triangle cannot be converted (Trilu)")
    below, above = (0, -1) if attributes.get("upper", 1) else (-1, 0)
    return Value(tf.linalg.band_part(inputs[0].plain(), below, above))


def _same(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    return inputs[0]


OPERATORS: dict[str, Callable[..., Any]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _same,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _same,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
