"""A planted fault: the digits network, which under PyTorch reads the picture with rows and columns swapped."""

from __future__ import annotations

from typing import Literal

import keras

from models.digits import architecture


def build(data_format: Literal["channels_first", "channels_last"]) -> keras.Model:
    model = architecture.build(data_format)
    if keras.backend.backend() == "torch":
        image = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
        swapped = keras.Model(image, model(keras.layers.Permute((2, 1, 3))(image)))
        swapped.load_weights = model.load_weights
        return swapped
    return model
