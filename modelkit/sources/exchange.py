"""A PyTorch network in the two forms from which both runtimes' artifacts are made: TorchScript and ONNX.

Runs in the environments of the conversion tools.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from modelkit.sources.common import Refusal

OPSET = 17
"""What PyTorch's TorchScript exporter writes and modelkit/onnx_tf reads."""


def write(network: torch.nn.Module, height: int, width: int, work: Path) -> list[tuple[int, ...]]:
    """Write `network.pt` and `network.onnx`, batch free; the shapes of the outputs for a batch of two.

    Raises Refusal for a network that cannot be traced, or that ONNX cannot express.
    """
    image = torch.rand((2, 3, height, width))
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    torch.backends.mha.set_fastpath_enabled(False)  # attention as one operator, which ONNX does not have
    with torch.no_grad():
        try:
            raw = network(image)
        except Exception as error:  # whatever the user's code raises
            raise Refusal(
                f"The network cannot be run on a float tensor [2, 3, {height}, {width}]: {_cause(error)}. Is"
                " --size right?"
            ) from error
        outputs = flat(raw)
        script = torch.jit.trace(network, (image,), strict=False, check_trace=False)
        script.save(str(work / "network.pt"))
        names = [f"output_{number}" for number in range(len(outputs))]
        try:
            torch.onnx.export(
                script if isinstance(network, torch.jit.ScriptModule | torch.fx.GraphModule) else network,
                (image,),
                str(work / "network.onnx"),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in ("image", *names)},
            )
        except Exception as error:  # torch.onnx has no one exception
            raise Refusal(
                f"PyTorch cannot express this network in ONNX, which is the way to TensorFlow: {_cause(error)}."
                " Convert it by hand and give both artifacts with --torch and --tf."
            ) from error
    return [tuple(output.shape) for output in outputs]


def activation_of(network: torch.nn.Module, height: int, width: int) -> str:
    """What the class scores already are: `softmax` if they add up to 1 for any picture, else `none`."""
    with torch.no_grad():
        scores = flat(network(torch.rand((4, 3, height, width)) * 4 - 2))[0]
    sums = scores.sum(dim=-1)
    return "softmax" if bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3) else "none"


def flat(raw: object) -> list[torch.Tensor]:
    """The tensors of what a network returned, in order. Raises Refusal for anything else."""
    values = list(raw.values()) if isinstance(raw, dict) else list(raw) if isinstance(raw, list | tuple) else [raw]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise Refusal(f"The network returns {type(raw).__name__}, not a tensor or several.")
    return values


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
