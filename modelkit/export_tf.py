"""A network → SavedModel. Runs in the TensorFlow worker's environment, under KERAS_BACKEND=tensorflow.

Its weights may stay variables or become constants of the graph, which TensorFlow's optimiser can work with: both forms
are made and timed, so that TensorFlow too is measured at its best. They are read back and run as the server does
it, in a session: there variables that a SavedModel does not name are not there. `python -m modelkit.export_tf`.
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
from modelkit.candidates import PICTURES, milliseconds_a_picture
from modelkit.network import Network
from modelkit.reduced import Irreducible
from modelkit.reduced_tf import DTYPES, reduce
from modelkit.sources.common import refuse
from modelkit.whole_tf import whole
from torch_worker.tuning import available_cpus

FROZEN = "saved-model-frozen"
Form = Callable[[export.Bytes], dict[str, export.Floats]]


def candidates(network: Network, work: Path, precision: export.Precision) -> dict[str, Form]:
    """Every export form, written to `work` and read back; the last is the one in `precision`, if that is not fp32.

    Raises Irreducible.
    """
    holder = tf.Module()  # a SavedModel keeps the variables of the object that it is made of
    holder.kept, call, takes_pictures = _network(network)
    infer = whole(call, None if takes_pictures else network.entrance, network.head)
    entrance = tf.TensorSpec((None, network.height, network.width, 3), tf.uint8, name="image")
    variables = tf.function(infer, input_signature=[entrance])
    graph = variables.get_concrete_function()
    names = sorted(graph.structured_outputs)  # the order in which a graph flattens a dictionary
    constant = convert_variables_to_constants_v2(graph)
    _save(tf.Module(), work / FROZEN, _named(constant, names, entrance))
    forms = [FROZEN]
    if graph.captured_inputs:
        _save(holder, work / "saved-model", variables)
        forms.append("saved-model")
    if precision != "fp32":
        forms.append(f"{FROZEN}-{precision}")
        _save(tf.Module(), work / forms[-1], _named(_reduced(constant, precision), names, entrance))
    return {form: _read_back(work / form) for form in forms}


def _named(graph: Callable[[tf.Tensor], Any], names: list[str], entrance: tf.TensorSpec) -> Any:
    """A function of the graph whose outputs, in order, have these names."""

    def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, graph(image), strict=True))

    return tf.function(infer, input_signature=[entrance], autograph=False)


def _reduced(constant: Any, precision: export.Precision) -> Callable[[tf.Tensor], Any]:
    """The graph in `precision`. Raises Irreducible."""
    graph = reduce(constant.graph.as_graph_def(), DTYPES[precision])
    (entrance,) = (each.name for each in constant.inputs)
    outputs = [each.name for each in constant.outputs]
    return lambda image: tf.graph_util.import_graph_def(graph, {entrance: image}, outputs, name="")


def _network(network: Network) -> tuple[Any, Callable[[tf.Tensor], Any], bool]:
    """The variables or what holds them, the call to what the network returns, and whether it takes the pictures
    themselves."""
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
    # Not the model: what Keras 3 wraps its variables in hides them from a SavedModel.
    return [each.value for each in model.variables], partial(model, training=False), False


def _save(holder: tf.Module, folder: Path, function: Any) -> None:
    # Gradients, which nobody asks of a served model, cannot always be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(holder, str(folder), signatures={"serving_default": function}, options=options)


def _read_back(folder: Path) -> Form:
    threads = available_cpus()  # as in a worker: the fastest form with one is not always the fastest with two
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads, allow_soft_placement=True
    )
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
    signature = loaded.signature_def["serving_default"]
    entrance = signature.inputs["image"].name
    outputs = {name: tensor.name for name, tensor in signature.outputs.items()}

    def call(pictures: export.Bytes) -> dict[str, export.Floats]:
        answers: dict[str, export.Floats] = session.run(outputs, {entrance: pictures})
        return answers

    return call


def main() -> None:
    job = export.Job.from_arguments()
    try:
        forms = candidates(job.network, job.work, job.precision)
    except Irreducible as error:
        refuse(str(error), job.work)
    images = job.pictures[:PICTURES]
    taken_ms = milliseconds_a_picture({form: partial(call, images) for form, call in forms.items()})
    if job.precision == "fp32":
        fastest = min(taken_ms, key=taken_ms.__getitem__)
        job.finish(fastest, taken_ms, forms[fastest])
    else:
        *_, reduced = forms
        job.finish(reduced, taken_ms, forms[reduced], forms[FROZEN])


if __name__ == "__main__":
    main()
