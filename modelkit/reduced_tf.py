"""A TensorFlow graph in 16 bits, by the rule of modelkit/reduced.py. Runs in the TensorFlow worker's environment.

What comes out is a graph of TensorFlow's public operations: any server runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from modelkit.reduced import Irreducible, Operation, reducible

DTYPES = {"bf16": tf.bfloat16, "fp16": tf.float16}
_WORKING = frozenset(
    ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum")
)
_PASSING = frozenset(
    (
        "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Maximum", "Minimum", "Neg",
        "BiasAdd", "Add", "AddV2", "Sub", "Mul", "RealDiv", "Mean", "FusedBatchNormV3",
        "MaxPool", "AvgPool", "ResizeNearestNeighbor",
        "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Slice", "StridedSlice",
        "Reshape", "Transpose", "Squeeze", "ExpandDims", "Identity", "Pad", "PadV2", "MirrorPad",
        "SpaceToBatchND", "BatchToSpaceND", "DepthToSpace", "SpaceToDepth",
    )
)  # fmt: skip


def reduce(graph: Any, dtype: Any) -> Any:
    """The frozen GraphDef `graph` with its work in `dtype`. Raises Irreducible."""
    nodes = _in_order(graph.node)
    place_of = {node.name: place for place, node in enumerate(nodes)}
    operations = [
        Operation(_kind(node), {place_of[_producer(each)] for each in node.input if not each.startswith("^")})
        for node in nodes
    ]
    chosen = reducible(operations, working=_WORKING, passing=_PASSING)
    if not chosen:
        raise Irreducible(
            "Its TensorFlow graph has no convolution or product of matrices, but for the last, that could be computed"
            " in 16 bits: add it with --precision fp32."
        )
    reduced = {nodes[place].name for place in chosen}
    made = tf.compat.v1.GraphDef()
    made.versions.CopyFrom(graph.versions)
    made.library.CopyFrom(graph.library)
    casts = _Casts(made, {node.name: node for node in nodes}, dtype)
    for place, node in enumerate(nodes):
        same = made.node.add()
        same.CopyFrom(node)
        typed = set(_typed(node)) if place in chosen else set()
        for position, value in enumerate(node.input):
            if value.startswith("^"):
                continue
            is_reduced = _producer(value) in reduced
            if is_reduced and position not in typed:
                same.input[position] = casts.of(value, tf.float32)
            elif position in typed and not is_reduced:
                same.input[position] = casts.of(value, dtype)
        if place in chosen:
            same.attr["T"].type = dtype.as_datatype_enum
    return _without_unread(made)


def _without_unread(graph: Any) -> Any:
    """`graph` without constants that nothing reads: the weights in 32 bits."""
    read = {_producer(each) for node in graph.node for each in node.input}
    kept = [node for node in graph.node if node.op != "Const" or node.name in read]
    return tf.compat.v1.GraphDef(node=kept, versions=graph.versions, library=graph.library)


def _kind(node: Any) -> str:
    """Its operation; of one whose numbers are not 32-bit floats, nothing that the rule knows."""
    # Looking an attribute up that is not there would make it.
    is_float = "T" in node.attr and node.attr["T"].type == tf.float32.as_datatype_enum
    return str(node.op) if is_float else f"{node.op} of another type"


def _typed(node: Any) -> Iterator[int]:
    """Positions of the inputs whose type is the operation's `T`."""
    position = 0
    for each in op_def_registry.get(node.op).input_arg:
        count = node.attr[each.number_attr].i if each.number_attr else 1
        if each.type_attr == "T":
            yield from range(position, position + count)
        position += count


def _producer(value: str) -> str:
    return value.removeprefix("^").partition(":")[0]


def _in_order(nodes: Any) -> list[Any]:
    """Every node after those that it reads."""
    by_name = {node.name: node for node in nodes}
    done: dict[str, Any] = {}
    waiting = [(node, False) for node in reversed(nodes)]
    while waiting:
        node, read = waiting.pop()
        if node.name in done:
            continue
        if read:
            done[node.name] = node
            continue
        waiting.append((node, True))
        waiting.extend((by_name[_producer(each)], False) for each in node.input if _producer(each) not in done)
    return list(done.values())


class _Casts:
    """Values in the other arithmetic; each is made once. Of a constant it is a constant."""

    def __init__(self, graph: Any, nodes: dict[str, Any], dtype: Any) -> None:
        self._graph = graph
        self._nodes = nodes
        self._dtype = dtype
        self._made: dict[tuple[str, Any], str] = {}

    def of(self, value: str, dtype: Any) -> str:
        if (value, dtype) not in self._made:
            name = f"{value.replace(':', '_')}/as_{dtype.name}"
            node = self._graph.node.add(name=name)
            source = self._nodes[_producer(value)]
            if source.op == "Const":
                node.op = "Const"
                array = tf.make_ndarray(source.attr["value"].tensor)
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array.astype(dtype.as_numpy_dtype)))
                node.attr["dtype"].type = dtype.as_datatype_enum
            else:
                node.op = "Cast"
                node.input.append(value)
                node.attr["SrcT"].type = (tf.float32 if dtype == self._dtype else self._dtype).as_datatype_enum
                node.attr["DstT"].type = dtype.as_datatype_enum
            self._made[value, dtype] = name
        return self._made[value, dtype]
