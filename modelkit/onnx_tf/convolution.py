"""Operators on pictures: convolution, pooling, resizing, normalisation of channels. They work channels-last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from modelkit.onnx_tf.value import Value

Pads = tuple[tuple[int, int], tuple[int, int]]


def _pads(attributes: dict[str, Any], size: list[int], stride: list[int], picture: Value) -> Pads:
    """What is added above and below, left and right."""
    how = attributes.get("auto_pad", "NOTSET")
    if how in ("SAME_UPPER", "SAME_LOWER"):
        both = []
        for side, kernel, step in zip(picture.shape[2:], size, stride, strict=True):
            if side is None:
                raise ValueError("auto_pad needs a picture of a known size")
            total = max((-(-side // step) - 1) * step + kernel - side, 0)
            less, more = total // 2, total - total // 2
            both.append((less, more) if how == "SAME_UPPER" else (more, less))
        return both[0], both[1]
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return (top, bottom), (left, right)


def _padding(pads: Pads, size: list[int], stride: list[int], dilation: list[int]) -> Any:
    """TensorFlow's word for it, if it has one, else the numbers."""
    if pads == ((0, 0), (0, 0)):
        return "VALID"
    reach = [(kernel - 1) * step for kernel, step in zip(size, dilation, strict=True)]
    if stride == [1, 1] and pads == tuple((each // 2, each - each // 2) for each in reach):
        return "SAME"
    return [[0, 0], list(pads[0]), list(pads[1]), [0, 0]]


def _convolution(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    picture, kernel, *bias = inputs
    if picture.rank != 4:
        raise ValueError("only two-dimensional convolutions can be converted")
    x, weights = picture.channels_last(), kernel.plain()
    weights = np.transpose(weights, (2, 3, 1, 0)) if kernel.known else tf.transpose(weights, (2, 3, 1, 0))
    size, groups = [int(side) for side in weights.shape[:2]], int(attributes.get("group", 1))
    stride, dilation = list(attributes.get("strides", [1, 1])), list(attributes.get("dilations", [1, 1]))
    padding = _padding(_pads(attributes, size, stride, picture), size, stride, dilation)
    channels = int(x.shape[-1])
    if groups == channels and groups > 1 and weights.shape[2] == 1 and stride[0] == stride[1]:
        multiplier = int(weights.shape[3]) // groups
        weights = tf.reshape(weights, [*size, groups, multiplier])
        y = tf.nn.depthwise_conv2d(x, weights, [1, *stride, 1], padding, dilations=dilation)
    elif groups > 1:
        parts = zip(tf.split(x, groups, -1), tf.split(weights, groups, -1), strict=True)
        y = tf.concat([tf.nn.conv2d(a, b, stride, padding, dilations=dilation) for a, b in parts], -1)
    else:
        y = tf.nn.conv2d(x, weights, stride, padding, dilations=dilation)
    return Value(tf.nn.bias_add(y, bias[0].plain()) if bias and bias[0] is not None else y, last=True)


def _transposed_convolution(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    picture, kernel, *bias = inputs
    if attributes.get("group", 1) != 1 or attributes.get("output_shape"):
        raise ValueError("transposed convolutions with groups or a fixed output shape cannot be converted")
    x, weights = picture.channels_last(), np.transpose(kernel.held, (2, 3, 1, 0))
    size, stride = weights.shape[:2], list(attributes.get("strides", [1, 1]))
    dilation = list(attributes.get("dilations", [1, 1]))
    (top, bottom), (left, right) = _pads(attributes, list(size), stride, picture)
    more = list(attributes.get("output_padding", [0, 0]))
    reach = [(kernel - 1) * step + 1 for kernel, step in zip(size, dilation, strict=True)]
    height, width = ((tf.shape(x)[axis + 1] - 1) * stride[axis] + reach[axis] for axis in (0, 1))
    full = [tf.shape(x)[0], height, width, weights.shape[2]]
    y = tf.nn.conv2d_transpose(x, weights, tf.stack(full), stride, "VALID", dilations=dilation)
    y = tf.pad(y, [[0, 0], [0, more[0]], [0, more[1]], [0, 0]]) if any(more) else y
    y = y[:, top : height + more[0] - bottom, left : width + more[1] - right]
    return Value(tf.nn.bias_add(y, bias[0].plain()) if bias and bias[0] is not None else y, last=True)


def _batch_normalisation(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, scale, offset, mean, variance = inputs
    factor = scale.held / np.sqrt(variance.held + np.float32(attributes.get("epsilon", 1e-5)))
    shift = offset.held - mean.held * factor
    if value.rank == 4:
        return Value(value.channels_last() * factor + shift, last=True)
    shape = (1, -1, *[1] * (value.rank - 2))
    return Value(value.plain() * factor.reshape(shape) + shift.reshape(shape))


def _window(attributes: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    size = list(attributes["kernel_shape"])
    return size, list(attributes.get("strides", [1, 1])), list(attributes.get("dilations", [1, 1]))


def _rounded_up(pads: Pads, size: list[int], stride: list[int], dilation: list[int], picture: Value) -> Pads:
    """More padding behind, so that a last window that is only half there counts (`ceil_mode`)."""
    grown = []
    for (before, after), side, kernel, step, spread in zip(
        pads, picture.shape[2:], size, stride, dilation, strict=True
    ):
        reach = (kernel - 1) * spread + 1
        if side is None:
            raise ValueError("ceil_mode needs a picture of a known size")
        windows = -(-(side + before + after - reach) // step) + 1
        if (windows - 1) * step >= side + before:  # it would lie in the padding alone
            windows -= 1
        grown.append((before, max(after, (windows - 1) * step + reach - side - before)))
    return grown[0], grown[1]


def _max_pool(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    (picture,) = inputs
    size, stride, dilation = _window(attributes)
    pads = _pads(attributes, size, stride, picture)
    if attributes.get("ceil_mode"):
        pads = _rounded_up(pads, size, stride, dilation, picture)
    x, padding = picture.channels_last(), _padding(pads, size, stride, dilation)
    if not isinstance(padding, str):
        x, padding = tf.pad(x, padding, constant_values=x.dtype.min), "VALID"
    return Value(tf.nn.pool(x, size, "MAX", strides=stride, padding=padding, dilations=dilation), last=True)


def _average_pool(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    (picture,) = inputs
    size, stride, dilation = _window(attributes)
    given = _pads(attributes, size, stride, picture)
    pads = _rounded_up(given, size, stride, dilation, picture) if attributes.get("ceil_mode") else given
    x = picture.channels_last()

    def pooled(y: Any) -> Any:
        return tf.nn.pool(y, size, "AVG", strides=stride, padding="VALID", dilations=dilation)

    if pads == ((0, 0), (0, 0)):
        return Value(pooled(x), last=True)
    padded = tf.pad(x, [[0, 0], list(pads[0]), list(pads[1]), [0, 0]])
    if attributes.get("count_include_pad") and pads == given:
        return Value(pooled(padded), last=True)
    counted = tf.ones_like(x[:1, :, :, :1])
    if attributes.get("count_include_pad"):
        counted = tf.pad(counted, [[0, 0], list(given[0]), list(given[1]), [0, 0]], constant_values=1)
        pads = tuple((more[0] - had[0], more[1] - had[1]) for more, had in zip(pads, given, strict=True))  # type: ignore[assignment]
    share = pooled(tf.pad(counted, [[0, 0], list(pads[0]), list(pads[1]), [0, 0]]))
    return Value(pooled(padded) / share, last=True)


def _global(function: Callable[..., Any]) -> Callable[..., Value]:
    return lambda inputs, _attributes, _count: Value(
        function(inputs[0].channels_last(), axis=[1, 2], keepdims=True), last=True
    )


def _resize(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    picture = inputs[0]
    given = inputs[3] if len(inputs) > 3 and inputs[3] is not None else None
    x = picture.channels_last()
    if given is not None:
        target = given.held[2:]
    else:
        scales = inputs[-1 if len(inputs) < 3 else 2].held[2:]
        target = np.floor(np.array(picture.shape[2:], dtype=np.float64) * scales).astype(np.int32)
    mode, where = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    target = tf.cast(target, tf.int32)
    if mode == "nearest":
        whole = isinstance(target, tf.Tensor) and all(
            old and int(new) % old == 0 for new, old in zip(tf.get_static_value(target), picture.shape[2:], strict=True)
        )
        if not whole and (where, attributes.get("nearest_mode", "round_prefer_floor")) != ("asymmetric", "floor"):
            raise ValueError(f"a nearest-neighbour resize by {where} cannot be converted")
        return Value(tf.compat.v1.image.resize_nearest_neighbor(x, target), last=True)
    if mode not in ("linear", "cubic") or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise ValueError(f"a resize of mode {mode}, {where} cannot be converted")
    if mode == "linear":
        corners = where == "align_corners"
        resized = tf.compat.v1.image.resize_bilinear(x, target, align_corners=corners, half_pixel_centers=not corners)
        return Value(resized, last=True)
    if where == "align_corners" or attributes.get("cubic_coeff_a", -0.75) != -0.5:
        raise ValueError("this cubic resize cannot be converted")
    return Value(tf.image.resize(x, target, method="bicubic"), last=True)


def _instance_normalisation(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    value, scale, offset = inputs
    axes = list(range(2, value.rank))
    x = value.plain()
    mean, variance = tf.nn.moments(x, axes=axes, keepdims=True)
    shape = (1, -1, *[1] * len(axes))
    scaled, shifted = (np.reshape(each.held, shape) for each in (scale, offset))
    y = tf.nn.batch_normalization(x, mean, variance, shifted, scaled, attributes.get("epsilon", 1e-5))
    return Value(y)


def _depth_to_space(inputs: list[Value], attributes: dict[str, Any], _count: int) -> Value:
    size = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "DCR":
        return Value(tf.nn.depth_to_space(inputs[0].channels_last(), size), last=True)
    x = inputs[0].channels_last()
    channels = int(x.shape[-1]) // size**2
    order = np.arange(channels * size**2).reshape(channels, size * size).T.ravel()
    return Value(tf.nn.depth_to_space(tf.gather(x, order, axis=-1), size), last=True)


OPERATORS: dict[str, Callable[..., Any]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalisation,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "DepthToSpace": _depth_to_space,
    "GlobalAveragePool": _global(tf.reduce_mean),
    "GlobalMaxPool": _global(tf.reduce_max),
    "InstanceNormalization": _instance_normalisation,
    "MaxPool": _max_pool,
    "Resize": _resize,
}
