"""Checks that folding changes nothing but rounding. Runs in the TensorFlow worker's environment."""

from __future__ import annotations

import keras
import numpy as np

from models.shapes.architecture import build, fold


def main() -> None:
    keras.utils.set_random_seed(1)
    trained = build("channels_last", training=True)
    rng = np.random.default_rng(1)
    for layer in trained.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
    images = rng.integers(0, 256, (4, 160, 160, 3), dtype=np.uint8)
    before, after = trained(images, training=False), fold(trained)(images, training=False)
    for name, values in before.items():
        assert np.ptp(values) > 0.1, f"{name}: nothing to tell apart"
        np.testing.assert_allclose(after[name], values, rtol=2e-3, atol=2e-3)


if __name__ == "__main__":
    main()
