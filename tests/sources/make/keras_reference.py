"""Scores by Keras's own loading of pictures and prediction: `python keras_reference.py model.keras PICTURE…`."""

from __future__ import annotations

import json
import sys

import keras
import numpy as np


def main(file: str, *pictures: str) -> None:
    model = keras.saving.load_model(file)
    size = model.input_shape[1:3]
    loaded = [keras.utils.load_img(path, target_size=size, interpolation="bilinear") for path in pictures]
    batch = np.stack([keras.utils.img_to_array(each) for each in loaded])
    print(json.dumps(np.asarray(model(batch, training=False)).tolist()))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
