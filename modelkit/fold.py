"""Batch normalisation worked into the layer before it. Runs in both worker environments, under either Keras backend.

Keras spells it in PyTorch as arithmetic that no PyTorch optimiser recognises: unfolded, a comparison would say more
about that spelling than about PyTorch.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.models.functional import Functional

_BEFORE = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def fold(model: keras.Model) -> keras.Model:
    """A functional model equal to `model` up to rounding, without the batch normalisations that could be folded.

    Any other model is returned as it is, a Sequential one too.
    """
    if not isinstance(model, Functional):
        return model
    pairs = dict(_foldable(model))
    if not pairs:
        return model
    gone = set(pairs.values())

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in pairs:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: keras.layers.Layer, *inputs: Any, **more: Any) -> Any:
        return inputs[0] if layer.name in gone else layer(*inputs, **more)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.name in pairs:
            folded.get_layer(layer.name).set_weights(_folded(layer, model.get_layer(pairs[layer.name])))
        elif layer.weights and layer.name not in gone:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _foldable(model: keras.Model) -> list[tuple[str, str]]:
    """Names of a layer and of the batch normalisation that is all that reads it."""
    found = []
    for layer in model.layers:
        if not isinstance(layer, layers.BatchNormalization) or len(layer._inbound_nodes) != 1:
            continue
        (before,) = {tensor._keras_history.operation for tensor in layer._inbound_nodes[0].input_tensors}
        linear = getattr(before, "activation", None) in (None, keras.activations.linear)
        if (
            type(before) in _BEFORE
            and linear
            and len(before._inbound_nodes) == 1
            and len(before._outbound_nodes) == 1
            and before.output not in model.outputs
            and layer.axis in (-1, len(before.output.shape) - 1)
        ):
            found.append((before.name, layer.name))
    return found


def _folded(layer: Any, norm: Any) -> list[Any]:
    """Kernel and bias with the normalisation worked in: y = (x − mean) · gamma / √(variance + epsilon) + beta."""
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(each)) for each in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(keras.ops.convert_to_numpy(norm.gamma)) if norm.scale else np.ones_like(mean)
    beta = np.asarray(keras.ops.convert_to_numpy(norm.beta)) if norm.center else np.zeros_like(mean)
    factor = gamma / np.sqrt(variance + norm.epsilon)
    kernel, *bias = layer.get_weights()
    # A depthwise kernel is [height, width, channel, multiplier]; every other has its outputs last.
    shape = (1, 1, *kernel.shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else (-1,)
    return [kernel * factor.reshape(shape), beta + ((bias[0] if bias else 0) - mean) * factor]
