"""A Keras model → TorchScript. Runs in the torch worker's environment, under KERAS_BACKEND=torch.

The model is built channels-first, traced, and frozen. Then two things are put right in the frozen graph:

- Keras writes the device that it traces on into the graph. Without those constants the module runs wherever
  `torch.jit.load(map_location=…)` puts it.
- Keras keeps convolution kernels as [height, width, in, out]; what reaches PyTorch is a transposed view that is laid
  out anew in every call. The permuted picture lies in memory as channels-last, so the kernels are stored that way too.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import torch
from keras.src.backend.common import global_state

from modelkit import export
from modelkit.candidates import PICTURES, milliseconds_a_picture

MODULE = "model.pt"
"""What a worker loads: a form that leaves this file can be packaged."""
Form = Callable[[torch.Tensor], dict[str, torch.Tensor]]


class Entrance(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """Names the one argument, which Keras leaves variadic."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs: dict[str, torch.Tensor] = self.model(image)
        return outputs


def frozen(model: torch.nn.Module, image: torch.Tensor, kernels: torch.memory_format | None) -> torch.jit.ScriptModule:
    """`model` traced and frozen, tied to no device, its 4-D constants stored in the order `kernels`."""
    module = torch.jit.freeze(torch.jit.trace(model, (image,), strict=False, check_trace=False).eval())
    graph = module.graph
    for node in graph.findAllNodes("aten::to"):
        values = list(node.inputs())
        if len(values) == 8:  # to(self, dtype, layout, device, pin_memory, non_blocking, copy, memory_format)
            source, dtype, _, _, _, *rest = values
            same = graph.create("aten::to", [source, dtype, *rest], 1)
            same.output().setType(node.output().type())
            same.insertBefore(node)
            node.output().replaceAllUsesWith(same.output())
            node.destroy()
    torch._C._jit_pass_dce(graph)
    for node in graph.findAllNodes("prim::Constant"):
        kind = node.output().type().kind()
        if kind == "DeviceObjType":
            raise RuntimeError(f"the traced graph is tied to a device:\n{graph}")
        if kernels is not None and kind == "TensorType" and node.t("value").dim() == 4:
            node.t_("value", node.t("value").contiguous(memory_format=kernels))
    return module


def candidates(architecture: str, weights: Path, work: Path) -> dict[str, Form]:
    """Every export form, written to `work` and read back: what is timed is what a worker would load."""
    build = importlib.import_module(architecture).build
    first, last = (Entrance(build(data_format)).eval() for data_format in ("channels_first", "channels_last"))
    for entrance in (first, last):
        entrance.model.load_weights(weights)
    height, width = first.model.input_shape[1:3]
    image = torch.zeros((2, height, width, 3), dtype=torch.uint8)

    def script(form: str, model: torch.nn.Module, kernels: torch.memory_format | None) -> torch.jit.ScriptModule:
        path = work / form
        path.mkdir()
        frozen(model, image, kernels).save(str(path / MODULE))
        return torch.jit.load(str(path / MODULE), map_location="cpu")

    def program(form: str, model: torch.nn.Module) -> torch.nn.Module:
        batch = torch.export.Dim("batch", min=1, max=1024)
        exported = torch.export.export(model, (image,), dynamic_shapes={"image": {0: batch}}, strict=False)
        path = work / f"{form}.pt2"
        torch.export.save(exported, path)
        return torch.export.load(path).module()

    channels_last = "torchscript-frozen-channels-last-kernels"
    return {
        channels_last: script(channels_last, first, torch.channels_last),
        "torchscript-frozen": script("torchscript-frozen", first, None),
        "torchscript-frozen-contiguous-kernels": script(
            "torchscript-frozen-contiguous-kernels", first, torch.contiguous_format
        ),
        # Cannot be saved: a worker would have to call it after loading.
        "torchscript-optimize-for-inference": torch.jit.optimize_for_inference(
            torch.jit.load(str(work / channels_last / MODULE), map_location="cpu")
        ),
        "exported-program": program("exported-program", first),
        "keras-channels-last-torchscript": script("keras-channels-last-torchscript", last, None),
        "keras-channels-last-exported-program": program("keras-channels-last-exported-program", last),
    }


def main() -> None:
    job = export.Job.from_arguments()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit: it is what TorchServe loads
    torch.set_num_threads(1)
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    # As a torch.device: next to the name that Keras keeps, every tensor seems to be on another device, and each
    # operation is traced with a move.
    global_state.set_global_attribute("torch_device", torch.device("cpu"))
    with torch.no_grad():
        forms = candidates(job.architecture, job.weights, job.work)
    with torch.inference_mode():
        images = torch.from_numpy(job.pictures[:PICTURES])
        taken_ms = milliseconds_a_picture({form: partial(call, images) for form, call in forms.items()})
        fastest = min((form for form in forms if (job.work / form / MODULE).exists()), key=taken_ms.__getitem__)

        def outputs(pictures: export.Bytes) -> dict[str, export.Floats]:
            return {name: tensor.numpy() for name, tensor in forms[fastest](torch.from_numpy(pictures)).items()}

        job.finish(fastest, taken_ms, outputs)


if __name__ == "__main__":
    main()
