"""Operators that compute: element by element, along an axis, or as matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf
from onnx import helper

from modelkit.onnx_tf.value import Value, aligned

Operator = Callable[[list[Value], dict[str, Any], int], Any]


def _unary(function: Callable[[Any], Any]) -> Operator:
    return lambda inputs, _attributes, _count: Value(function(inputs[0].held), inputs[0].last)


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    def operator(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
        held, last = aligned(inputs)
        return Value(function(*held), last)

    return operator


def _many(function: Callable[[Any, Any], Any]) -> Operator:
    def operator(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
        held, last = aligned(inputs)
        return Value(reduce(function, held), last)

    return operator


def _divide(first: Any, second: Any) -> Any:
    if tf.as_dtype(first.dtype).is_integer:
        return tf.cast(tf.truncatediv(first, second), first.dtype)
    return tf.divide(first, second)


def _mod(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    held, last = aligned(inputs)
    return Value((tf.math.truncatemod if attributes.get("fmod") else tf.math.floormod)(*held), last)


def _clip(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, *bounds = inputs
    low, high = [*bounds, None, None][:2]
    least = attributes.get("min") if low is None else low.held
    most = attributes.get("max") if high is None else high.held
    held = value.held
    if least is not None and most is not None and np.all(least == 0) and np.all(most == 6):
        return Value(tf.nn.relu6(held), value.last)
    if least is not None:
        held = tf.maximum(held, least)
    if most is not None:
        held = tf.minimum(held, most)
    return Value(held, value.last)


def _with(function: Callable[..., Any], **defaults: Any) -> Operator:
    """An element-wise function with attributes."""

    def operator(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
        given = {name: attributes.get(name, default) for name, default in defaults.items()}
        return Value(function(inputs[0].held, **given), inputs[0].last)

    return operator


def _hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    return tf.clip_by_value(x * alpha + beta, 0.0, 1.0)


def _cast(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    dtype = helper.tensor_dtype_to_np_dtype(attributes["to"])
    return Value(tf.cast(inputs[0].held, dtype), inputs[0].last)


def _along(function: Callable[..., Any]) -> Operator:
    def operator(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
        return Value(function(inputs[0].held, axis=inputs[0].axis(attributes.get("axis", -1))), inputs[0].last)

    return operator


def _reduced(function: Callable[..., Any]) -> Operator:
    def operator(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
        value = inputs[0]
        axes = attributes.get("axes")
        if axes is None and len(inputs) > 1 and inputs[1] is not None:
            axes = [int(axis) for axis in inputs[1].held]
        keep = bool(attributes.get("keepdims", 1))
        if axes is None and attributes.get("noop_with_empty_axes"):
            return value
        where = list(range(value.rank)) if axes is None else [axis % value.rank for axis in axes]
        if keep:
            return Value(function(value.held, axis=[value.axis(axis) for axis in where], keepdims=True), value.last)
        if value.last and set(where) == {2, 3}:  # what is left, batch and channels, lies in ONNX's order
            return Value(function(value.held, axis=[1, 2], keepdims=False))
        return Value(function(value.plain(), axis=where, keepdims=False))

    return operator


def _norm(x: Any, axis: Any, keepdims: bool) -> Any:
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=axis, keepdims=keepdims))


def _arg_max(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    axis = attributes.get("axis", 0)
    found = tf.argmax(inputs[0].plain(), axis=axis)
    return Value(tf.expand_dims(found, axis) if attributes.get("keepdims", 1) else found)


def _mat_mul(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    first, second = (value.plain() for value in inputs)
    if first.shape[-1] is not None and len(second.shape) == 1:
        return Value(tf.linalg.matvec(first, second))
    return Value(tf.matmul(first, second))


def _gemm(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    first, second = inputs[0].plain(), inputs[1].plain()
    if attributes.get("transB") and isinstance(second, np.ndarray):
        second, transposed = second.T, False
    else:
        transposed = bool(attributes.get("transB"))
    result = tf.matmul(first, second, transpose_a=bool(attributes.get("transA")), transpose_b=transposed)
    if (alpha := attributes.get("alpha", 1.0)) != 1.0:
        result *= alpha
    if len(inputs) > 2 and inputs[2] is not None:
        bias = inputs[2].plain() * np.float32(attributes.get("beta", 1.0))
        result = tf.nn.bias_add(result, bias) if len(bias.shape) == 1 else result + bias
    return Value(result)


def _layer_normalisation(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, scale, *bias = inputs
    x = value.plain()
    axes = list(range(attributes.get("axis", -1) % value.rank, value.rank))
    mean, variance = tf.nn.moments(x, axes=axes, keepdims=True)
    offset = bias[0].plain() if bias and bias[0] is not None else None
    return Value(tf.nn.batch_normalization(x, mean, variance, offset, scale.plain(), attributes.get("epsilon", 1e-5)))


def _where(inputs: list[Value], _attributes: dict[str, Any], _count: int) -> Value:
    held, last = aligned(inputs)
    return Value(tf.where(*held), last)


def _einsum(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    return Value(tf.einsum(attributes["equation"], *(value.plain() for value in inputs)))


OPERATORS: dict[str, Operator] = {
    "Abs": _unary(tf.abs),
    "Add": _binary(tf.add),
    "And": _binary(tf.logical_and),
    "ArgMax": _arg_max,
    "Cast": _cast,
    "Ceil": _unary(tf.math.ceil),
    "Clip": _clip,
    "Cos": _unary(tf.cos),
    "Div": _binary(_divide),
    "Einsum": _einsum,
    "Elu": _with(lambda x, alpha: tf.where(x > 0, x, alpha * (tf.exp(x) - 1)), alpha=1.0),
    "Equal": _binary(tf.equal),
    "Erf": _unary(tf.math.erf),
    "Exp": _unary(tf.exp),
    "Floor": _unary(tf.floor),
    "Gelu": _with(lambda x, approximate: tf.nn.gelu(x, approximate=approximate == "tanh"), approximate="none"),
    "Gemm": _gemm,
    "Greater": _binary(tf.greater),
    "GreaterOrEqual": _binary(tf.greater_equal),
    "HardSigmoid": _with(_hard_sigmoid, alpha=0.2, beta=0.5),
    "HardSwish": _unary(lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6)),
    "LayerNormalization": _layer_normalisation,
    "LeakyRelu": _with(lambda x, alpha: tf.nn.leaky_relu(x, alpha), alpha=0.01),
    "Less": _binary(tf.less),
    "LessOrEqual": _binary(tf.less_equal),
    "Log": _unary(tf.math.log),
    "LogSoftmax": _along(tf.nn.log_softmax),
    "MatMul": _mat_mul,
    "Max": _many(tf.maximum),
    "Min": _many(tf.minimum),
    "Mish": _unary(lambda x: x * tf.tanh(tf.math.softplus(x))),
    "Mod": _mod,
    "Mul": _binary(tf.multiply),
    "Neg": _unary(tf.negative),
    "Not": _unary(tf.logical_not),
    "Or": _binary(tf.logical_or),
    "PRelu": _binary(lambda x, slope: tf.maximum(x, 0.0) + slope * tf.minimum(x, 0.0)),
    "Pow": _binary(lambda x, power: tf.pow(x, tf.cast(power, x.dtype))),
    "Reciprocal": _unary(tf.math.reciprocal),
    "ReduceL2": _reduced(_norm),
    "ReduceMax": _reduced(tf.reduce_max),
    "ReduceMean": _reduced(tf.reduce_mean),
    "ReduceMin": _reduced(tf.reduce_min),
    "ReduceProd": _reduced(tf.reduce_prod),
    "ReduceSum": _reduced(tf.reduce_sum),
    "Relu": _unary(tf.nn.relu),
    "Round": _unary(tf.round),
    "Selu": _unary(tf.nn.selu),
    "Sigmoid": _unary(tf.sigmoid),
    "Sign": _unary(tf.sign),
    "Sin": _unary(tf.sin),
    "Softmax": _along(tf.nn.softmax),
    "Softplus": _unary(tf.math.softplus),
    "Softsign": _unary(tf.nn.softsign),
    "Sqrt": _unary(tf.sqrt),
    "Sub": _binary(tf.subtract),
    "Sum": _many(tf.add),
    "Tanh": _unary(tf.tanh),
    "Where": _where,
}
