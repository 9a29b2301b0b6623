"""The network, defined once for both runtimes. Runs in a worker environment, under either Keras backend."""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers

SIDE = 32
CLASSES = 10


def build(data_format: Literal["channels_first", "channels_last"], *, training: bool = False) -> keras.Model:
    """`image: uint8 [batch, 32, 32, 3]` → `{"scores": float32 [batch, 10]}`, softmax, in either memory layout.

    The weights have the same shapes and the same meaning in both layouts: one weights file fits both. Nothing after the
    entrance depends on the order of the axes: the features are averaged over the picture, never flattened.

    `training` adds batch normalisation and dropout. The served network has neither: `fold` works the normalisation
    into the convolutions, because Keras spells it in PyTorch as arithmetic that no PyTorch optimiser recognises.
    """
    channels = 1 if data_format == "channels_first" else 3

    def block(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
        convolution = layers.Conv2D(
            filters, 3, padding="same", use_bias=not training, data_format=data_format, name=name
        )
        x = convolution(x)
        if training:
            x = layers.BatchNormalization(axis=channels, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def halve(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.MaxPooling2D(2, data_format=data_format, name=name)(x)

    image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    x = image
    if data_format == "channels_first":
        x = layers.Permute((3, 1, 2), name="to_channels_first")(x)
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(x)
    x = halve(block(x, 24, "conv1"), "half1")
    x = halve(block(block(x, 48, "conv2"), 48, "conv3"), "half2")
    x = block(block(x, 96, "conv4"), 96, "conv5")
    x = layers.GlobalAveragePooling2D(data_format=data_format, name="average")(x)
    if training:
        x = layers.Dropout(0.3, name="dropout")(x)
    scores = layers.Dense(CLASSES, activation="softmax", name="scores")(x)
    return keras.Model(image, {"scores": scores}, name="digits")


def fold(trained: keras.Model) -> keras.Model:
    """The network to serve, equal to `trained` (built with `training=True`) up to rounding."""
    served = build("channels_last")
    for layer in served.layers:
        if isinstance(layer, layers.Conv2D):
            gamma, beta, mean, variance = trained.get_layer(f"{layer.name}_norm").get_weights()
            epsilon = trained.get_layer(f"{layer.name}_norm").epsilon
            factor = gamma / (variance + epsilon) ** 0.5
            (kernel,) = trained.get_layer(layer.name).get_weights()
            layer.set_weights([kernel * factor, beta - mean * factor])
        elif isinstance(layer, layers.Dense):
            layer.set_weights(trained.get_layer(layer.name).get_weights())
    return served
