"""`model.onnx`, for both runtimes. Runs in the conversion environment."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from modelkit.network import Activation, Entrance, Head, Network
from modelkit.sources import exchange
from modelkit.sources.common import Refusal, Request, run
from modelkit.sources.torch_model import import_torchvision


def read(request: Request) -> None:
    path = Path(request.source)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, onnx's, the file system's
        raise Refusal(f"{path} cannot be read as ONNX: {str(error).splitlines()[0]}") from error
    height, width = _free_the_batch(model, request)
    onnx.save(model, request.work / "network.onnx")
    import_torchvision()  # which onnx2torch imports
    import onnx2torch

    try:
        network = onnx2torch.convert(onnx.load(request.work / "network.onnx")).eval()
    except Exception as error:  # onnx2torch raises NotImplementedError and others
        raise Refusal(
            f"onnx2torch cannot make a PyTorch network of {path}: {error}. Give a pair: --torch and --tf."
        ) from error
    _check_batch(network, height, width)
    given = {entry.key: entry.value for entry in model.metadata_props}
    known = _ultralytics(given) if "names" in given and "task" in given else {}
    with torch.no_grad():
        script = torch.jit.trace(network, (torch.rand((2, 3, height, width)),), strict=False, check_trace=False)
    script.save(str(request.work / "network.pt"))
    if known.get("task", "classify") == "classify":
        head, more = _classifier(network, request, height, width, known)
    else:
        head, more = _detector(model, known)
    Network(
        torch={"script": str(request.work / "network.pt")},
        tf={"onnx": str(request.work / "network.onnx")},
        height=height,
        width=width,
        entrance=request.entrance(known.get("entrance")),
        head=head,
        facts={
            "task": known.get("task", "classify"),
            "input": request.input(**known.get("input", {})),
            "licence": request.licence or known.get("licence"),
            "source": path.name,
            **more,
        },
    ).write(request.work)


def _free_the_batch(model: Any, request: Request) -> tuple[int, int]:
    """Make the first dimension of input and outputs free, and the input channels-first. Raises Refusal."""
    graph = model.graph
    constants = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise Refusal("The ONNX network must have one input, a float32 picture.")
    dims = inputs[0].type.tensor_type.shape.dim
    shape = [dim.dim_value or None for dim in dims]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise Refusal(
            f"The ONNX network's input is {shape}; [batch, 3, height, width] or [batch, height, width, 3] is needed."
        )
    last = shape[1] != 3
    height, width = (shape[1], shape[2]) if last else (shape[2], shape[3])
    if height is None or width is None:
        height, width = request.size_wanted()
    if (request.height, request.width) not in ((None, None), (height, width)):
        raise Refusal(f"The network's input is {height}x{width}: leave --size out.")
    if shape[0] == 1:
        _free_reshapes(graph)
    name = inputs[0].name
    if last:
        graph.node.insert(0, helper.make_node("Transpose", ["image_channels_first"], [name], perm=[0, 2, 3, 1]))
        graph.input.remove(inputs[0])
        name = "image_channels_first"
    else:
        graph.input.remove(inputs[0])
    graph.input.insert(0, helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, height, width]))
    for output in graph.output:
        if output.type.tensor_type.shape.dim:
            output.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]  # inferred for the batch that it had
    return height, width


def _free_reshapes(graph: Any) -> None:
    """Shapes that begin with the one picture of an export: as many as there are, instead."""
    wanted = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    tensors = {each.name: each for each in graph.initializer}
    tensors |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for name in wanted & tensors.keys():
        target = numpy_helper.to_array(tensors[name])
        if target.size > 1 and target[0] == 1:
            freed = target.copy()
            freed[0] = 0  # "as it was"
            tensors[name].CopyFrom(numpy_helper.from_array(freed, name))


def _check_batch(network: torch.nn.Module, height: int, width: int) -> None:
    """Raises Refusal where two pictures together are not answered as each by itself."""
    pictures = torch.rand((2, 3, height, width))
    with torch.no_grad():
        try:
            together = exchange.flat(network(pictures))
            alone = [exchange.flat(network(picture[None])) for picture in pictures]
        except RuntimeError as error:
            raise Refusal(
                f"The network was exported for a batch of one, and takes no other: {str(error).splitlines()[0]}."
                " Export it"
                " again with a free batch."
            ) from error
    for number, output in enumerate(together):
        single = torch.cat([each[number] for each in alone])
        if single.shape != output.shape or not torch.allclose(
            single, output, rtol=1e-3, atol=1e-3 * float(output.abs().max())
        ):
            raise Refusal("The network mixes the pictures of a batch. Export it again with a free batch.")


def _ultralytics(given: dict[str, str]) -> dict[str, Any]:
    """What Ultralytics' exporter writes into the file."""
    names = ast.literal_eval(given["names"])
    detector = given["task"] != "classify"
    side = max(ast.literal_eval(given["imgsz"]))
    return {
        "task": given["task"],
        "labels": [names[number] for number in range(len(names))],
        "entrance": Entrance(),
        "licence": "AGPL-3.0 (Ultralytics), unless you hold another licence",
        "input": {"fit": "letterbox", "antialias": False} if detector else {"fit": "crop", "shorter_side": side},
    }


def _classifier(
    network: torch.nn.Module, request: Request, height: int, width: int, known: dict[str, Any]
) -> tuple[Head, dict[str, Any]]:
    with torch.no_grad():
        found = network(torch.rand((2, 3, height, width)))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise Refusal(
            "The ONNX network does not return one tensor [batch, classes]. A detector is known if Ultralytics"
            " exported it;"
            " convert any other to a pair, and give --torch and --tf."
        )
    made = exchange.activation_of(network, height, width)
    activation: Activation = request.activation or ("softmax" if made == "none" else "none")
    labels = known.get("labels") if request.labels is None else None
    return Head("scores", activation=activation), {
        "labels": labels or request.labels_wanted(found.shape[1]),
        "meaning": "softmax" if "softmax" in (activation, made) else "sigmoid",
    }


def _detector(model: Any, known: dict[str, Any]) -> tuple[Head, dict[str, Any]]:
    """Ultralytics' export of a head that needs non-maximum suppression: [batch, 4 + classes + masks, n], prototypes."""
    shapes = [[dim.dim_value for dim in output.type.tensor_type.shape.dim] for output in model.graph.output]
    classes = len(known["labels"])
    masks = shapes[1][1] if len(shapes) > 1 else 0
    if len(shapes[0]) != 3 or shapes[0][1] != 4 + classes + masks:
        raise Refusal(
            f"The network's output is {shapes[0]}, not [batch, {4 + classes + masks}, candidates]: it was"
            " exported with its selection"
            " of boxes inside. Add the checkpoint itself, or export it again without (nms=False, end2end=False)."
        )
    head = Head("dense", layout="rows", box="xywh", classes=classes, masks=masks, top_k=1000)
    detection = {"nms_iou": 0.7, "min_score": 0.25, "max_detections": 300}
    return head, {"labels": known["labels"], "detection": detection}


if __name__ == "__main__":
    run(read)
