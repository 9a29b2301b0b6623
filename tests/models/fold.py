"""Checks that folding changes nothing but rounding. Runs in the TensorFlow worker's environment."""

from __future__ import annotations

import keras
import numpy as np

from models.shapes.architecture import LOGITS, build, fold


def main() -> None:
    keras.utils.set_random_seed(1)
    trained = build("channels_last", training=True)
    rng = np.random.default_rng(1)
    for layer in trained.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "mean": (-0.1, 0.1), "variance": (0.1, 0.3)}
            layer.set_weights([rng.uniform(*each, layer.gamma.shape) for each in ranges.values()])
    images = rng.integers(0, 256, (4, 160, 160, 3), dtype=np.uint8)
    before, after = (
        keras.Model(model.input, {name: model.get_layer(name).output for name in (LOGITS, "distances")})(images)
        for model in (trained, fold(trained))
    )
    for name, values in before.items():
        spread = np.ptp(values, axis=0).max()
        assert 0.1 < spread < np.inf, f"{name}: a spread of {spread} over the pictures tells nothing"
        np.testing.assert_allclose(after[name], values, atol=1e-4 * spread)


if __name__ == "__main__":
    main()
