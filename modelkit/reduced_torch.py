"""A TorchScript graph in 16 bits, by the rule of modelkit/reduced.py. Runs in the torch worker's environment."""

from __future__ import annotations

from typing import Any

import torch

from modelkit.reduced import Irreducible, Operation, reducible

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NUMBERS = {torch.float16: 5, torch.float32: 6, torch.bfloat16: 15}
"""What a graph calls them: c10::ScalarType."""
_WORKING = frozenset(
    f"aten::{name}"
    for name in (
        "_convolution", "convolution", "conv1d", "conv2d", "conv3d", "conv_transpose2d",
        "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention",
    )
)  # fmt: skip
_PASSING = frozenset(
    f"aten::{name}"
    for name in (
        "relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "elu", "elu_",
        "gelu", "silu", "silu_", "sigmoid", "sigmoid_", "tanh", "hardswish", "hardswish_", "hardsigmoid",
        "hardsigmoid_", "clamp", "clamp_", "clamp_min", "clamp_max", "minimum", "maximum", "neg",
        "add", "add_", "sub", "mul", "mul_", "div", "mean", "batch_norm",
        "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
        "cat", "stack", "chunk", "split", "split_with_sizes", "unbind", "slice", "select", "narrow",
        "permute", "transpose", "t", "flatten", "unflatten", "reshape", "view", "expand", "squeeze", "unsqueeze",
        "contiguous", "clone", "detach", "dropout", "dropout_", "feature_dropout", "constant_pad_nd", "pad", "roll",
        "pixel_shuffle", "channel_shuffle",
    )
) | {"prim::ListConstruct", "prim::ListUnpack"}  # fmt: skip
_FIRST_ONLY = {"aten::batch_norm": 1, "aten::scaled_dot_product_attention": 3}
"""How many of their inputs are in 16 bits: a normalisation's statistics are not."""


def reduce(graph: torch._C.Graph, dtype: torch.dtype) -> None:
    """Put the work of the frozen `graph` into `dtype`. Raises Irreducible."""
    nodes = list(graph.nodes())
    _check(nodes)
    place_of = {output.debugName(): place for place, node in enumerate(nodes) for output in node.outputs()}
    operations = [
        Operation(_kind(node), {place_of[each.debugName()] for each in node.inputs() if each.debugName() in place_of})
        for node in nodes
    ]
    chosen = reducible(operations, working=_WORKING, passing=_PASSING)
    if not chosen:
        raise Irreducible(
            "Its TorchScript graph has no convolution or product of matrices, but for the last, that could be computed"
            " in 16 bits: add it with --precision fp32."
        )
    reduced = {output.debugName() for place in chosen for output in nodes[place].outputs()}
    casts = _Casts(graph, dtype)
    for place, node in enumerate(nodes):
        most = _FIRST_ONLY.get(node.kind(), len(list(node.inputs()))) if place in chosen else 0
        for position, value in enumerate(list(node.inputs())):
            _fit(casts, node, position, value, is_reduced=value.debugName() in reduced, wanted=position < most)
    for position, value in enumerate(list(graph.outputs())):
        if value.debugName() in reduced:
            _fit(casts, graph.return_node(), position, value, is_reduced=True, wanted=False)
    for place in chosen:
        for output in nodes[place].outputs():
            if output.type().kind() == "TensorType":
                output.setType(torch._C.TensorType.get())  # what was traced says 32 bits
    torch._C._jit_pass_dce(graph)  # the weights in 32 bits


def _kind(node: Any) -> str:
    """Its operation; of attention with a mask, whose type must fit, nothing that the rule knows."""
    kind = str(node.kind())
    if kind == "aten::scaled_dot_product_attention" and list(node.inputs())[3].type().kind() != "NoneType":
        return f"{kind} with a mask"
    return kind


def _check(nodes: list[Any]) -> None:
    if any(list(node.blocks()) for node in nodes):
        raise Irreducible(
            "Its TorchScript has branches or loops, whose arithmetic cannot be changed: give the network itself"
            " (package.module:factory) or a traced one, or add it with --precision fp32."
        )


def _fit(casts: _Casts, node: Any, position: int, value: Any, *, is_reduced: bool, wanted: bool) -> None:
    """Have `node` read `value` in the arithmetic that is wanted there."""
    kind = value.type().kind()
    if is_reduced == wanted or kind not in ("TensorType", "ListType"):
        return
    if kind == "ListType":
        if is_reduced:
            raise Irreducible(
                f"Its TorchScript reads a list of tensors in {node.kind()}, which has no 16-bit form: add it with"
                " --precision fp32."
            )
        return  # of numbers, or of tensors that were put into 16 bits one by one
    if is_reduced and node.kind().endswith("_") and node.kind() not in _PASSING:
        raise Irreducible(
            f"Its TorchScript writes into a tensor ({node.kind()}), whose arithmetic cannot be changed: give a network"
            " without that, or add it with --precision fp32."
        )
    node.replaceInput(position, casts.reduced(value) if wanted else casts.whole(value))


class _Casts:
    """Values in the other arithmetic; each is made once."""

    def __init__(self, graph: Any, dtype: torch.dtype) -> None:
        self._graph = graph
        self._dtype = dtype
        self._first = next(iter(graph.nodes()))
        self._made: dict[tuple[str, torch.dtype], Any] = {}
        self._false = self._constant(torch._C.BoolType.get(), 0)
        self._none = self._constant(torch._C.NoneType.get())
        self._numbers = {
            each: self._constant(torch._C.IntType.get(), _NUMBERS[each]) for each in (dtype, torch.float32)
        }

    def reduced(self, value: Any) -> Any:
        node = value.node()
        if node.kind() != "prim::Constant":
            return self._cast(value, self._dtype)
        if (value.debugName(), self._dtype) not in self._made:
            same = self._graph.create("prim::Constant", 1)
            same.t_("value", node.t("value").to(self._dtype))
            same.output().setType(torch._C.TensorType.get())
            same.insertBefore(self._first)
            self._made[value.debugName(), self._dtype] = same.output()
        return self._made[value.debugName(), self._dtype]

    def whole(self, value: Any) -> Any:
        return self._cast(value, torch.float32)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if (value.debugName(), dtype) not in self._made:
            inputs = [value, self._numbers[dtype], self._false, self._false, self._none]
            cast = self._graph.create("aten::to", inputs, 1)
            cast.output().setType(torch._C.TensorType.get())
            if value.node().kind() == "prim::Param":
                cast.insertBefore(self._first)
            else:
                cast.insertAfter(value.node())
            self._made[value.debugName(), dtype] = cast.output()
        return self._made[value.debugName(), dtype]

    def _constant(self, kind: Any, value: int | None = None) -> Any:
        node = self._graph.create("prim::Constant", 1)
        if value is not None:
            node.i_("value", value)
        node.output().setType(kind)
        node.insertBefore(self._first)
        return node.output()
