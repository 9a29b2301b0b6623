"""A user's Keras model: convolutions with batch normalisation, Flatten, and its own Rescaling; trained on the scans of
scikit-learn for a minute. In `.venv-tf`: `python keras_digits.py SCANS.npz model.keras`."""

from __future__ import annotations

import sys

import keras
import numpy as np
from keras import layers


def main(scans: str, target: str) -> None:
    with np.load(scans) as data:
        pictures, labels = data["pictures"], data["labels"]
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            layers.Input((24, 24, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Conv2D(24, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pictures, labels, epochs=12, batch_size=32, verbose=2)
    model.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
