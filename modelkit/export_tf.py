"""A network → SavedModel. Runs in the TensorFlow worker's environment, under KERAS_BACKEND=tensorflow.

Its weights may stay variables or become constants of the graph, which TensorFlow's optimiser can work with: both forms
are made and timed, so that TensorFlow too is measured at its best. `python -m modelkit.export_tf`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from modelkit import export
from modelkit.candidates import PICTURES, milliseconds_a_picture, threads
from modelkit.network import Network
from modelkit.whole_tf import whole

Form = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def candidates(network: Network, work: Path) -> dict[str, Form]:
    """Every export form, written to `work` and read back."""
    holder = tf.Module()  # a SavedModel keeps the variables of the object that it is made of
    holder.model, call, takes_pictures = _network(network)
    infer = whole(call, None if takes_pictures else network.entrance, network.head)
    entrance = tf.TensorSpec((None, network.height, network.width, 3), tf.uint8, name="image")
    variables = tf.function(infer, input_signature=[entrance])
    graph = variables.get_concrete_function()
    names = sorted(graph.structured_outputs)  # the order in which a graph flattens a dictionary
    constant = convert_variables_to_constants_v2(graph)

    def infer_constant(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, constant(image), strict=True))

    constants = tf.function(infer_constant, input_signature=[entrance])
    _save(tf.Module(), work / "saved-model-frozen", constants)
    forms = ["saved-model-frozen"]
    if graph.captured_inputs:
        _save(holder, work / "saved-model", variables)
        forms.append("saved-model")
    return {form: _read_back(work / form) for form in forms}


def _network(network: Network) -> tuple[Any, Callable[[tf.Tensor], Any], bool]:
    """What holds the variables, the call to what the network returns, and whether it takes the pictures themselves."""
    if "saved_model" in network.tf or "given" in network.tf:
        saved = tf.saved_model.load(network.tf.get("saved_model") or network.tf["given"])
        signature = saved.signatures["serving_default"]
        ((argument, given),) = signature.structured_input_signature[1].items()

        def call(x: tf.Tensor) -> Any:
            outputs = signature(**{argument: x})
            return outputs if "given" in network.tf else [outputs[name] for name in sorted(outputs)]

        return saved, call, given.dtype == tf.uint8
    import keras

    if "architecture" in network.tf:
        model = importlib.import_module(network.tf["architecture"]).build("channels_last")
        model.load_weights(network.tf["weights"])
    else:
        model = keras.saving.load_model(network.tf["keras"], compile=False, safe_mode="trust" not in network.tf)
    return model, partial(model, training=False), False


def _save(holder: tf.Module, folder: Path, function: Any) -> None:
    # Gradients, which nobody asks of a served model, cannot always be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(holder, str(folder), signatures={"serving_default": function}, options=options)


def _read_back(folder: Path) -> Form:
    saved = tf.saved_model.load(str(folder))

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = saved.signatures["serving_default"](image=image)
        return outputs

    return call


def main() -> None:
    job = export.Job.from_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(threads())
    tf.config.threading.set_inter_op_parallelism_threads(1)
    forms = candidates(job.network, job.work)
    images = tf.constant(job.pictures[:PICTURES])
    taken_ms = milliseconds_a_picture({form: partial(call, images) for form, call in forms.items()})
    fastest = min(taken_ms, key=taken_ms.__getitem__)

    def outputs(pictures: export.Bytes) -> dict[str, export.Floats]:
        return {name: tensor.numpy() for name, tensor in forms[fastest](tf.constant(pictures)).items()}

    job.finish(fastest, taken_ms, outputs)


if __name__ == "__main__":
    main()
