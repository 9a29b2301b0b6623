"""A Keras model → SavedModel. Runs in the TensorFlow worker's environment, under KERAS_BACKEND=tensorflow.

The model is built channels-last. Its weights may stay variables or become constants of the graph, which TensorFlow's
optimiser can work with: both forms are made and timed, so that TensorFlow too is measured at its best.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from modelkit import export
from modelkit.candidates import PICTURES, milliseconds_a_picture

Form = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def candidates(architecture: str, weights: Path, work: Path) -> dict[str, Form]:
    """Every export form, written to `work` and read back."""
    model = importlib.import_module(architecture).build("channels_last")
    model.load_weights(weights)
    entrance = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")

    def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = model(image, training=False)
        return outputs

    variables = tf.function(infer, input_signature=[entrance])
    graph = variables.get_concrete_function()
    names = sorted(graph.structured_outputs)  # the order in which a graph flattens a dictionary
    constant = convert_variables_to_constants_v2(graph)

    def infer_constant(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, constant(image), strict=True))

    constants = tf.function(infer_constant, input_signature=[entrance])
    holder = tf.Module()
    holder.model = model  # a SavedModel keeps the variables of the object that it is made of
    tf.saved_model.save(tf.Module(), str(work / "saved-model-frozen"), signatures={"serving_default": constants})
    tf.saved_model.save(holder, str(work / "saved-model"), signatures={"serving_default": variables})
    return {form: _loaded(work / form) for form in ("saved-model-frozen", "saved-model")}


def _loaded(folder: Path) -> Form:
    saved = tf.saved_model.load(str(folder))

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = saved.signatures["serving_default"](image=image)
        return outputs

    return call


def main() -> None:
    job = export.Job.from_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    forms = candidates(job.architecture, job.weights, job.work)
    images = tf.constant(job.pictures[:PICTURES])
    taken_ms = milliseconds_a_picture({form: partial(call, images) for form, call in forms.items()})
    fastest = min(taken_ms, key=taken_ms.__getitem__)

    def outputs(pictures: export.Bytes) -> dict[str, export.Floats]:
        return {name: tensor.numpy() for name, tensor in forms[fastest](tf.constant(pictures)).items()}

    job.finish(fastest, taken_ms, outputs)


if __name__ == "__main__":
    main()
