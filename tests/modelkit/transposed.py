"""A planted fault: the digits network, whose channels-first build swaps rows and columns at the entrance."""

from __future__ import annotations

from typing import Literal

import keras

from models.digits import architecture


def build(data_format: Literal["channels_first", "channels_last"]) -> keras.Model:
    model = architecture.build(data_format)
    if data_format == "channels_first":
        model.get_layer("to_channels_first").dims = (3, 2, 1)
    return model
