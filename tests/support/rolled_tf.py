"""The digits graph with every class moved up by one: `python -m tests.support.rolled_tf FROM TO` in .venv-tf."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf


class Rolled(tf.Module):  # type: ignore[misc]  # tensorflow has no types
    def __init__(self, digits: Any) -> None:
        super().__init__()
        self.digits = digits

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, name="image")])  # type: ignore[untyped-decorator]
    def serve(self, image: Any) -> dict[str, Any]:
        return {"scores": tf.roll(self.digits.signatures["serving_default"](image=image)["scores"], 1, 1)}


if __name__ == "__main__":
    rolled = Rolled(tf.saved_model.load(sys.argv[1]))
    tf.saved_model.save(rolled, sys.argv[2], signatures={"serving_default": rolled.serve})
