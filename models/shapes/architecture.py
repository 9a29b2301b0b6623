"""The network, defined once for both runtimes. Runs in a worker environment, under either Keras backend.

Anchor-free: every cell of two grids, of 8 and of 16 pixels, is a candidate, and says how far the four edges of a box
are from its middle and how likely each class is. Grids are halved by convolutions of 2×2 pixels with stride 2, which
need no padding: what Keras pads for larger ones is an operation of its own in PyTorch.
"""

from __future__ import annotations

from typing import Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

SIDE = 160
CLASSES = 6
STRIDES = (8, 16)
ANCHORS = sum((SIDE // stride) ** 2 for stride in STRIDES)
LOGITS = "logits"
"""Name of the layer whose output is the class scores before the sigmoid."""

Floats = npt.NDArray[np.float32]


def build(data_format: Literal["channels_first", "channels_last"], *, training: bool = False) -> keras.Model:
    """`image: uint8 [batch, 160, 160, 3]` → `boxes` float32 `[batch, 500, 4]` and `class_scores` `[batch, 500, 6]`.

    Boxes are x1, y1, x2, y2 in pixels of the image; scores are from 0 to 1, each class by itself. The weights have the
    same shapes and the same meaning in both memory layouts: one weights file fits both.

    `training` adds batch normalisation. The served network has none: `fold` works it into the convolutions, because
    Keras spells it in PyTorch as arithmetic that no PyTorch optimiser recognises.
    """
    channels = 1 if data_format == "channels_first" else 3

    def conv(x: keras.KerasTensor, filters: int, kernel: int, name: str) -> keras.KerasTensor:
        """Kernels of 2 halve the grid, others keep it."""
        convolution = layers.Conv2D(
            filters,
            kernel,
            strides=2 if kernel == 2 else 1,
            padding="valid" if kernel == 2 else "same",
            use_bias=not training,
            data_format=data_format,
            name=name,
        )
        x = convolution(x)
        if training:
            x = layers.BatchNormalization(axis=channels, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def twice(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
        return layers.Conv2DTranspose(filters, 2, strides=2, data_format=data_format, name=name)(x)

    def candidates(x: keras.KerasTensor, filters: int, prior: float, name: str) -> keras.KerasTensor:
        """A grid of predictions → `[batch, cells, filters]`, row by row."""
        bias = keras.initializers.Constant(prior)
        x = layers.Conv2D(filters, 1, data_format=data_format, bias_initializer=bias, name=name)(x)
        if data_format == "channels_first":
            x = layers.Permute((2, 3, 1), name=f"{name}_to_channels_last")(x)
        return layers.Reshape((-1, filters), name=f"{name}_rows")(x)

    image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    x = image
    if data_format == "channels_first":
        x = layers.Permute((3, 1, 2), name="to_channels_first")(x)
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(x)
    x = conv(conv(x, 24, 2, "half"), 24, 3, "half_1")
    x = conv(conv(x, 48, 2, "quarter"), 48, 3, "quarter_1")
    eighth = conv(conv(conv(x, 64, 2, "eighth"), 64, 3, "eighth_1"), 64, 3, "eighth_2")
    sixteenth = conv(conv(conv(eighth, 96, 2, "sixteenth"), 96, 3, "sixteenth_1"), 96, 3, "sixteenth_2")
    x = conv(conv(sixteenth, 80, 2, "last"), 80, 3, "last_1")
    coarse = layers.Add(name="coarse_sum")([twice(x, 64, "coarse_up"), conv(sixteenth, 64, 1, "coarse_side")])
    coarse = conv(coarse, 64, 3, "coarse")
    fine = layers.Add(name="fine_sum")([twice(coarse, 64, "fine_up"), conv(eighth, 64, 1, "fine_side")])
    fine = conv(fine, 64, 3, "fine")

    distances, logits = [], []
    for name, grid in (("fine", fine), ("coarse", coarse)):
        distances.append(candidates(conv(grid, 64, 3, f"{name}_edges"), 4, 0.7, f"{name}_distances"))
        logits.append(candidates(conv(grid, 64, 3, f"{name}_classes"), CLASSES, -4.6, f"{name}_logits"))
    scores = layers.Concatenate(axis=1, name=LOGITS)(logits)
    scores = layers.Activation("sigmoid", name="class_scores")(scores)
    middles, signed_strides = grids()
    edges = keras.ops.exp(layers.Concatenate(axis=1, name="distances")(distances))
    boxes = edges * signed_strides + middles
    if not training:  # beyond the edges nothing is visible; in training, what is clipped could not be put right
        boxes = keras.ops.clip(boxes, 0.0, float(SIDE))
    boxes = layers.Identity(name="boxes")(boxes)
    return keras.Model(image, {"boxes": boxes, "class_scores": scores}, name="shapes")


def grids() -> tuple[Floats, Floats]:
    """Of each candidate, `[1, 500, 4]`: its middle as x, y, x, y; its stride, negative for the left and upper edge."""
    middles, strides = [], []
    for stride in STRIDES:
        ticks = np.arange(SIDE // stride) * stride + stride / 2
        y, x = np.meshgrid(ticks, ticks, indexing="ij")
        middles.append(np.stack([x, y, x, y], axis=-1).reshape(-1, 4))
        strides.append(np.full((ticks.size**2, 4), stride) * [-1, -1, 1, 1])
    return (
        np.concatenate(middles)[np.newaxis].astype(np.float32),
        np.concatenate(strides)[np.newaxis].astype(np.float32),
    )


def fold(trained: keras.Model) -> keras.Model:
    """The network to serve, equal to `trained` (built with `training=True`) up to rounding."""
    served = build("channels_last")
    norms = {layer.name for layer in trained.layers if isinstance(layer, layers.BatchNormalization)}
    for layer in served.layers:
        if not layer.weights:
            continue
        weights = trained.get_layer(layer.name).get_weights()
        if f"{layer.name}_norm" in norms:
            norm = trained.get_layer(f"{layer.name}_norm")
            gamma, beta, mean, variance = norm.get_weights()
            factor = gamma / (variance + norm.epsilon) ** 0.5
            weights = [weights[0] * factor, beta - mean * factor]
        layer.set_weights(weights)
    return served
