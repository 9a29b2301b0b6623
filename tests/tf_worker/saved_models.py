"""The small SavedModels that the tests serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf


class Scale(tf.Module):  # type: ignore[misc]  # tensorflow has no types
    """`scaled` = x × factor; `total`, the sum of each row of that."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def both(self, x: Any) -> dict[str, Any]:
        scaled = x * self.factor
        return {"scaled": scaled, "total": tf.reduce_sum(scaled, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def any_width(self, x: Any) -> dict[str, Any]:
        return {"scaled": x * self.factor}


class Choosy(tf.Module):  # type: ignore[misc]
    """Gives pictures back; fails a batch in which any value is 255."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3], tf.uint8, name="image")])  # type: ignore[untyped-decorator]
    def __call__(self, image: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(image, tf.constant(255, tf.uint8), message="a 255")]):
            return {"image": tf.identity(image)}


class Words(tf.Module):  # type: ignore[misc]
    """Strings, whole numbers, truth values and a half in one answer."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])  # type: ignore[untyped-decorator]
    def __call__(self, word: Any) -> dict[str, Any]:
        length = tf.strings.length(word)
        return {
            "upper": tf.strings.upper(word),
            "length": length,
            "long": length > 3,
            "half": tf.cast(length, tf.float16) / 2,
        }


class Mixed(tf.Module):  # type: ignore[misc]
    """Two inputs, of words and of whole numbers; the words come back as bytes, the numbers doubled."""

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None], tf.string, name="word"), tf.TensorSpec([None], tf.int32, name="number")]
    )
    def __call__(self, word: Any, number: Any) -> dict[str, Any]:
        return {"echo_bytes": tf.identity(word), "twice": number * 2}


class Slow(tf.Module):  # type: ignore[misc]
    """Counts up to n, one step of the graph at a time."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="n")])  # type: ignore[untyped-decorator]
    def __call__(self, n: Any) -> dict[str, Any]:
        return {"n": tf.while_loop(lambda i: i < n, lambda i: (i + 1,), (tf.constant(0),), parallel_iterations=1)[0]}


class Heavy(tf.Module):  # type: ignore[misc]
    """Has so many bytes of weights, and gives one of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.zeros([size // 4]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="index")])  # type: ignore[untyped-decorator]
    def __call__(self, index: Any) -> dict[str, Any]:
        return {"weight": tf.gather(self.weights, index)}


TYPES = {
    dtype.name: dtype
    for dtype in (
        tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.uint8, tf.int8, tf.uint16, tf.int16, tf.uint32, tf.int32,
        tf.uint64, tf.int64, tf.bool, tf.complex64, tf.complex128, tf.qint8, tf.quint8, tf.qint16, tf.quint16,
        tf.qint32, tf.dtypes.experimental.int4, tf.dtypes.experimental.uint4, tf.dtypes.experimental.float8_e5m2,
        tf.dtypes.experimental.float8_e4m3fn, tf.string,
    )
}  # fmt: skip


def save_types(path: Path) -> None:
    """A signature for each type, of its name, that gives its input back."""
    module = tf.Module()
    module.functions = {
        name: tf.function(lambda x: {"x": tf.identity(x)}, input_signature=[tf.TensorSpec([None], dtype, name="x")])
        for name, dtype in TYPES.items()
    }
    tf.saved_model.save(module, str(path), signatures=module.functions)


class Waits(tf.Module):  # type: ignore[misc]
    """Answers once there is a file that matches the pattern."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="pattern")])  # type: ignore[untyped-decorator]
    def __call__(self, pattern: Any) -> dict[str, Any]:
        def is_missing(_: Any) -> Any:
            return tf.equal(tf.size(tf.io.matching_files(pattern)), 0)

        return {"looks": tf.while_loop(is_missing, lambda i: (i + 1,), (tf.constant(0),), parallel_iterations=1)[0]}


def save(module: Any, path: Path) -> None:
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.__call__})


def save_scale(path: Path, factor: float) -> None:
    module = Scale(factor)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.both, "any_width": module.any_width})
