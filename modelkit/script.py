"""What is put right in a TorchScript graph before it is packaged. Runs in the torch worker's environment."""

from __future__ import annotations

from typing import Any

import torch


def freeze(
    module: torch.jit.ScriptModule, kernels: torch.memory_format | None = None, *, keras: bool = False
) -> torch.jit.ScriptModule:
    """`module` frozen, tied to no device, its 4-D constants stored in the order `kernels`.

    Of a Keras model, also without the detours that Keras writes.

    - Tracing writes the device that it runs on into the graph. Without those constants the module runs wherever
      `torch.jit.load(map_location=…)` puts it.
    - Keras keeps convolution kernels as [height, width, in, out]; what reaches PyTorch is a transposed view that is
      laid out anew in every call, unless the constant itself is stored in that order.
    - Around each convolution Keras copies a channels-last tensor into another order, and adds the bias in a pass of its
      own. A permuted channels-last tensor is what PyTorch's convolution takes as it is.
    """
    frozen = torch.jit.freeze(module.eval())
    graph = frozen.graph
    _untie(graph)
    if keras:
        _drop_copies(graph)
        _move_biases(graph)
    torch._C._jit_pass_dce(graph)
    for node in graph.findAllNodes("prim::Constant"):
        kind = node.output().type().kind()
        if kind == "DeviceObjType":
            raise RuntimeError(f"the traced graph is tied to a device:\n{graph}")
        if kernels is not None and kind == "TensorType" and node.t("value").dim() == 4:
            node.t_("value", node.t("value").contiguous(memory_format=kernels))
    return frozen


def _untie(graph: torch._C.Graph) -> None:
    """Take the device out of every `to(self, dtype, layout, device, pin_memory, non_blocking, copy, memory_format)`."""
    for node in graph.findAllNodes("aten::to"):
        values = list(node.inputs())
        if len(values) == 8:
            source, dtype, _, _, _, *rest = values
            same = graph.create("aten::to", [source, dtype, *rest], 1)
            same.output().setType(node.output().type())
            same.insertBefore(node)
            node.output().replaceAllUsesWith(same.output())
            node.destroy()


def _drop_copies(graph: torch._C.Graph) -> None:
    """`contiguous` changes the order in memory, never a value."""
    for node in graph.findAllNodes("aten::contiguous"):
        node.output().replaceAllUsesWith(next(node.inputs()))
        node.destroy()


def _move_biases(graph: torch._C.Graph) -> None:
    """convolution without bias → permute to channels-last → add(constant) becomes convolution with bias → permute."""
    for node in graph.findAllNodes("aten::_convolution"):
        weight, bias = list(node.inputs())[1:3]
        permute = _only_user(node, "aten::permute")
        add = _only_user(permute, "aten::add") if permute is not None else None
        if add is None or bias.type().kind() != "NoneType" or not _is_constant(weight):
            continue
        if next(iter(add.inputs())).node() != permute:
            continue
        channels = _constant(weight).shape[0]
        value = list(add.inputs())[1]
        if value.node().kind() == "aten::reshape":
            value = next(value.node().inputs())
        if not _is_constant(value) or _constant(value).numel() != channels or _constant(value).shape[-1] != channels:
            continue
        constant = graph.create("prim::Constant", 1)
        constant.t_("value", _constant(value).reshape(channels))
        constant.output().setType(value.type())
        constant.insertBefore(node)
        node.replaceInput(2, constant.output())
        add.output().replaceAllUsesWith(permute.output())
        add.destroy()


def _only_user(node: Any, kind: str) -> Any:
    """The one node that reads the output of `node`, if it is of that kind."""
    uses = node.output().uses()
    return uses[0].user if len(uses) == 1 and uses[0].user.kind() == kind else None


def _is_constant(value: Any) -> bool:
    return bool(value.node().kind() == "prim::Constant" and value.type().kind() == "TensorType")


def _constant(value: Any) -> torch.Tensor:
    return value.node().t("value")
