"""A frozen TorchScript graph as a module that torch.export reads: its operations, one by one, in Python.

The compiler starts from the graph that is packaged otherwise, so that every source has a compiled form, and both do the
same. Runs in the torch worker's environment.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import torch

_CONVOLUTION_ARGUMENTS = 9
"""Of `aten::_convolution`; what follows are switches of a library for GPUs."""
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "aten::add": lambda a, b, alpha=1: a + alpha * b,
    "aten::sub": lambda a, b, alpha=1: a - alpha * b,
    "aten::mul": operator.mul,
    "aten::floor_divide": operator.floordiv,
    "aten::floordiv": operator.floordiv,
    "aten::remainder": operator.mod,
}
"""A traced graph computes with sizes as tensors; here they stay numbers."""
_SAME = ("prim::NumToTensor", "aten::Int", "aten::IntImplicit", "aten::ScalarImplicit", "aten::detach")


class NotReplayable(Exception):
    """The graph has an operation that is not known here. The message names it."""


class Replayed(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """`image` → the outputs by name, as the graph says. Raises NotReplayable."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        graph = script.graph.copy()
        torch._C._jit_pass_inline(graph)
        self._constants: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._steps: list[tuple[Callable[..., Any], list[str], list[str]]] = []
        _, self._image = (each.debugName() for each in graph.inputs())
        (self._outputs,) = (each.debugName() for each in graph.outputs())
        for node in graph.nodes():
            names = [each.debugName() for each in node.outputs()]
            if node.kind() == "prim::Constant":
                self._constant(names[0], node.output().toIValue())
            elif node.kind() != "prim::GetAttr":
                self._steps.append((_operation(node), [each.debugName() for each in node.inputs()], names))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        known = {self._image: image, **self._constants}
        for name, buffer in self._names.items():
            known[name] = getattr(self, buffer)
        for operation, inputs, outputs in self._steps:
            found = operation(*(known[name] for name in inputs))
            known.update(zip(outputs, found if len(outputs) > 1 else [found], strict=True))
        answer: dict[str, torch.Tensor] = known[self._outputs]
        return answer

    def _constant(self, name: str, value: Any) -> None:
        # A whole number is one of the sizes that a traced graph computes with.
        if isinstance(value, torch.Tensor) and (value.dim() or value.is_floating_point()):
            self._names[name] = f"constant_{len(self._names)}"
            self.register_buffer(self._names[name], value.detach())
        else:
            self._constants[name] = value.item() if isinstance(value, torch.Tensor) else value


def _operation(node: Any) -> Callable[..., Any]:
    kind = node.kind()
    if kind in _SAME:
        return lambda value, *_: value
    if kind in ("prim::ListConstruct", "prim::TupleConstruct"):
        return lambda *values: list(values)
    if kind in ("prim::ListUnpack", "prim::TupleUnpack"):
        return (lambda values: values) if node.outputsSize() > 1 else operator.itemgetter(0)
    if kind == "prim::DictConstruct":
        return lambda *values: dict(zip(values[::2], values[1::2], strict=True))
    if kind == "aten::size":
        return lambda tensor, *place: tensor.shape[place[0]] if place else list(tensor.shape)
    if kind == "aten::_convolution":
        return lambda *values: torch.ops.aten.convolution.default(*values[:_CONVOLUTION_ARGUMENTS])
    namespace, _, name = kind.partition("::")
    found = re.match(r"[\w:]+\.?(\w*)\(", str(node.schema())) if namespace == "aten" else None
    packet = getattr(torch.ops.aten, name, None) if found else None
    if packet is None or found is None:
        raise NotReplayable(f"it has the operation {kind}")
    operation = getattr(packet, found[1] or "default")
    numbers = _OF_NUMBERS.get(kind)
    named = [each.name for each in operation._schema.arguments if each.kwarg_only]
    plain = len(operation._schema.arguments) - len(named)

    def call(*values: Any) -> Any:
        if numbers is not None and not isinstance(values[0], torch.Tensor):
            return numbers(*values)
        return operation(*values[:plain], **dict(zip(named, values[plain:], strict=False)))

    return call
