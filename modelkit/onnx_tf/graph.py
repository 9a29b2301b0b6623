"""The graph, node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

from modelkit.onnx_tf import arithmetic, convolution, shapes
from modelkit.onnx_tf.value import Value

OPERATORS: dict[str, Callable[..., Any]] = {**arithmetic.OPERATORS, **convolution.OPERATORS, **shapes.OPERATORS}
_FOLDED_UP_TO = 1 << 20
"""Elements of a value that is computed while the graph is built."""


class Unsupported(Exception):
    """The graph has operators that are not known here. The message names them."""


def check(model: Any) -> None:
    """Raises Unsupported."""
    unknown = sorted({node.op_type for node in model.graph.node if node.op_type not in OPERATORS})
    if unknown:
        raise Unsupported(f"it has operators that Tandem does not convert: {', '.join(unknown)}")


def run(model: Any, picture: tf.Tensor) -> list[tf.Tensor]:
    """The outputs of the network for float pictures [batch, height, width, 3], laid out as ONNX means them."""
    values = {each.name: Value(numpy_helper.to_array(each)) for each in model.graph.initializer}
    (given,) = [each.name for each in model.graph.input if each.name not in values]
    values[given] = Value(picture, last=True)
    values[""] = None  # type: ignore[assignment]  # an optional input that is left out
    for node in model.graph.node:
        inputs = [values[name] for name in node.input]
        results = _outputs(node, inputs)
        values.update(zip(node.output, results, strict=False))  # an optional output may be left out
    return [tf.convert_to_tensor(values[each.name].plain()) for each in model.graph.output]


def _outputs(node: Any, inputs: list[Value]) -> list[Value]:
    attributes = {each.name: _attribute(each) for each in node.attribute}
    operator = OPERATORS[node.op_type]
    known = all(value is None or (value.known and value.held.size <= _FOLDED_UP_TO) for value in inputs)
    if known:
        with tf.init_scope():  # computed now, not in the graph
            results = operator(inputs, attributes, len(node.output))
        return [Value(np.asarray(each.held), each.last) for each in _several(results)]
    return _several(operator(inputs, attributes, len(node.output)))


def _several(results: Any) -> list[Value]:
    return list(results) if isinstance(results, list | tuple) else [results]


def _attribute(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value
