"""`torchvision:name`, `package.module:factory`, `.pt2`, `.torchscript`. Runs in the conversion environment."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from modelkit.network import Activation, Entrance, Head, Network
from modelkit.sources import exchange
from modelkit.sources.common import Refusal, Request, offline, read_labels, run


def read(request: Request) -> None:
    if request.source.startswith("torchvision:"):
        classifier, known = _torchvision(request)
    elif ":" in request.source and not Path(request.source).exists():
        classifier, known = _factory(request), {}
    else:
        classifier, known = _file(Path(request.source)), {}
    if request.task not in (None, "classify"):
        raise Refusal(
            f"{request.source} can be added as a classifier only: what a detector of your own returns is known to"
            " you alone."
            " Convert it to a pair that returns boxes, scores and classes (docs/models.md), and give --torch and --tf."
        )
    height, width = known.get("size") or request.size_wanted()
    if request.height is not None and request.width is not None:
        height, width = request.height, request.width
    entrance = request.entrance(known.get("entrance"))
    (scores, *more) = exchange.write(classifier, height, width, request.work)
    if more or len(scores) != 2:
        raise Refusal(f"The network returns {[scores, *more]}; a classifier's one tensor [batch, classes] is needed.")
    made = exchange.activation_of(classifier, height, width)
    activation: Activation = request.activation or ("softmax" if made == "none" else "none")
    labels = known.get("labels")
    if request.labels is not None or labels is None or len(labels) != scores[1]:
        labels = request.labels_wanted(scores[1])
    Network(
        torch={"script": str(request.work / "network.pt")},
        tf={"onnx": str(request.work / "network.onnx")},
        height=height,
        width=width,
        entrance=entrance,
        head=Head("scores", activation=activation),
        facts={
            "task": "classify",
            "labels": labels,
            "meaning": "softmax" if "softmax" in (activation, made) else "sigmoid",
            "input": request.input(**known.get("input", {})),
            "licence": request.licence,
            "source": known.get("source") or _described(request),
        },
    ).write(request.work)


def _described(request: Request) -> str:
    source = request.source if ":" in request.source else Path(request.source).name
    return source if request.weights is None else f"{source}, {Path(request.weights).name}"


def import_torchvision() -> Any:
    """torchvision, also beside a build of torch for which its compiled operators were not made: none of them is used
    here, but the import wants the schemas of two to exist."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    global _library
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


_library: Any = None
"""Keeps the schemas defined."""


def _torchvision(request: Request) -> tuple[torch.nn.Module, dict[str, Any]]:
    models = import_torchvision().models
    name = request.source.removeprefix("torchvision:")
    known = models.list_models(module=models)
    if name not in known:
        other = name in models.list_models()
        reason = (
            "has a task that cannot be converted: its graph filters boxes, or its output is not a classifier's."
            " An Ultralytics"
            " checkpoint can be added as it is; any other detector as a pair, with --torch and --tf"
            if other
            else f"does not exist. torchvision's classifiers: {', '.join(known)}"
        )
        raise Refusal(f"torchvision's {name!r} {reason}.")
    enum = models.get_model_weights(name)
    weights = request.weights or "DEFAULT"
    chosen = enum.DEFAULT
    if weights not in ("none", "DEFAULT") and weights in enum.__members__:
        chosen = enum[weights]
    downloaded = weights == "DEFAULT" or weights in enum.__members__
    facts = _facts(chosen)
    facts["source"] = (
        f"torchvision {name},"
        f" {chosen.name if downloaded else Path(weights).name if weights != 'none' else 'random weights'}"
    )
    if downloaded:
        try:
            return models.get_model(name, weights=chosen).eval(), facts
        except Exception as error:  # urllib's, ssl's and torch.hub's own
            raise offline(f"torchvision's weights {chosen} of {name}", "--weights FILE", error) from error
    if weights == "none":
        classes = len(facts["labels"])
        if request.labels not in (None, "numbers"):
            classes = len(read_labels(request.labels))
        return models.get_model(name, weights=None, num_classes=classes).eval(), facts
    state = _state(Path(weights), request.trust)
    last = [value for value in state.values() if value.ndim >= 1][-1]
    model = models.get_model(name, weights=None, num_classes=int(last.shape[0]))
    _load(model, state, weights)
    return model.eval(), facts


def _facts(weights: Any) -> dict[str, Any]:
    """What torchvision's own preprocessing does, as its weights declare it."""
    preset = weights.transforms()
    (side,) = set(preset.crop_size)
    (shorter,) = preset.resize_size
    return {
        "size": (side, side),
        "entrance": Entrance(tuple(preset.mean), tuple(preset.std)),
        "labels": list(weights.meta["categories"]),
        "input": {
            "fit": "crop",
            "shorter_side": shorter,
            "interpolation": preset.interpolation.value,
            "antialias": preset.antialias is not False,
        },
    }


def _factory(request: Request) -> torch.nn.Module:
    module_name, _, attribute = request.source.partition(":")
    sys.path.insert(0, os.environ.get("TANDEM_SOURCE_FOLDER", os.curdir))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        model = factory()
    except Exception as error:  # the user's own code
        raise Refusal(
            f"{request.source} could not be called without arguments: {type(error).__name__}: {error}. It is"
            " imported from the"
            " folder in which the command is run, in the conversion environment; what it needs besides PyTorch must be"
            " installed there, or name your own with TANDEM_CONVERT_PYTHON."
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise Refusal(f"{request.source} returned a {type(model).__name__}, not a torch.nn.Module.")
    if request.weights not in (None, "none"):
        _load(model, _state(Path(request.weights), request.trust), request.weights)
    return model.eval()


def _file(path: Path) -> torch.nn.Module:
    if not path.is_file():
        raise Refusal(f"There is no file {path}.")
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        if is_torchscript(path):
            return torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # a damaged file: zip, pickle and C++ errors
        raise Refusal(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    raise Refusal(
        f"{path} is neither TorchScript, nor a program of torch.export (.pt2), nor an Ultralytics checkpoint. If"
        " it holds weights,"
        f" name what builds the network as well: package.module:factory --weights {path.name}."
    )


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip file with code in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _state(path: Path, trust: bool) -> dict[str, torch.Tensor]:
    """A state dict. No pickled code is run unless it is trusted. Raises Refusal."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=not trust)
    except FileNotFoundError:
        raise Refusal(f"There is no file {path}.") from None
    except Exception as error:  # pickle's, zipfile's, torch's
        hint = "" if trust else " If it holds more than tensors and you trust it, --trust lets its code run."
        raise Refusal(f"{path} cannot be read as weights: {str(error).splitlines()[0]}{hint}") from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if isinstance(found, torch.nn.Module):
        found = found.state_dict()
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise Refusal(f"{path} holds no state dict: a dictionary of tensors by parameter name is needed.")
    return {name.removeprefix("module."): value for name, value in found.items()}


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor], file: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise Refusal(f"{file} does not fit the network: {' '.join(lines)[:500]}") from error


if __name__ == "__main__":
    run(read)
