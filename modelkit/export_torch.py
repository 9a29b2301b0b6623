"""A network → TorchScript, in the form that runs fastest here. Runs in the torch worker's environment.

Under KERAS_BACKEND=torch: a Keras model is traced as it is, channels-last, and `script.freeze` puts right what Keras's
spelling of it costs. `python -m modelkit.export_torch`.
"""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from modelkit import export
from modelkit.candidates import PICTURES, milliseconds_a_picture, threads
from modelkit.network import Network
from modelkit.script import freeze
from modelkit.whole_torch import Whole

MODULE = "model.pt"
"""What a worker loads: a form that leaves this file can be packaged."""
Form = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def candidates(network: Network, work: Path) -> dict[str, Form]:
    """Every export form, written to `work` and read back: what is timed is what a worker would load."""
    if "given" in network.torch:
        return _as_given(network, work)
    if "script" in network.torch:
        return _of_script(network, network.torch["script"], work)
    return _of_keras(network, work)


def _as_given(network: Network, work: Path) -> dict[str, Form]:
    """The user's own TorchScript, untouched if it takes the pictures and returns the outputs themselves."""
    image = torch.zeros((2, network.height, network.width, 3), dtype=torch.uint8)
    try:
        outputs = torch.jit.load(network.torch["given"], map_location="cpu").eval()(image)
    except RuntimeError:
        return _of_script(network, network.torch["given"], work)
    if network.head is None and isinstance(outputs, dict):
        folder = work / "as-given"
        folder.mkdir()
        shutil.copyfile(network.torch["given"], folder / MODULE)
        return {"as-given": torch.jit.load(str(folder / MODULE), map_location="cpu").eval()}
    script = torch.jit.load(network.torch["given"], map_location="cpu").eval()
    whole = Whole(script, None, network.head, channels_last=True).eval()
    return {"torchscript": _written(work / "torchscript", freeze(_traced(whole, image)))}


def _of_script(network: Network, path: str, work: Path) -> dict[str, Form]:
    """PyTorch's two orders in memory: which one suits a network better differs from network to network."""
    if network.entrance is None:
        raise RuntimeError(
            "the TorchScript module does not take uint8 pictures, and nothing says how they are normalised"
        )
    image = torch.zeros((2, network.height, network.width, 3), dtype=torch.uint8)
    forms: dict[str, Form] = {}
    for form, kernels in (
        ("torchscript-channels-first", None),
        ("torchscript-channels-last", torch.channels_last),
    ):
        script = torch.jit.load(path, map_location="cpu").eval()
        whole = Whole(script, network.entrance, network.head, channels_last=False, copied=kernels is None).eval()
        forms[form] = _written(work / form, freeze(_traced(whole, image), kernels))
        if kernels is None:  # beside them, what runs without any of this
            forms["as-traced"] = _traced(whole, image)
    return forms


def _of_keras(network: Network, work: Path) -> dict[str, Form]:
    import keras
    from keras.src.backend.common import global_state

    # As a torch.device: next to the name that Keras keeps, every tensor seems to be on another device, and each
    # operation is traced with a move.
    global_state.set_global_attribute("torch_device", torch.device("cpu"))
    if "architecture" in network.torch:
        build = importlib.import_module(network.torch["architecture"]).build
        given = [build(data_format) for data_format in ("channels_last", "channels_first")]
        for model in given:
            model.load_weights(network.torch["weights"])
    else:
        given = [keras.saving.load_model(network.torch["keras"], compile=False, safe_mode="trust" not in network.torch)]
    last, *first = (Whole(model, network.entrance, network.head, channels_last=True).eval() for model in given)
    image = torch.zeros((2, network.height, network.width, 3), dtype=torch.uint8)
    as_exported = torch.jit.freeze(_traced(last, image).eval())
    forms = {
        "torchscript-channels-last": _written(
            work / "torchscript-channels-last", freeze(_traced(last, image), torch.channels_last, keras=True)
        ),
        # Beside them, to show what the detours of Keras's spelling cost.
        "keras-as-exported": as_exported,
    }
    for whole in first:
        forms["torchscript-channels-first"] = _written(
            work / "torchscript-channels-first", freeze(_traced(whole, image), torch.channels_last, keras=True)
        )
    return forms


def _traced(model: torch.nn.Module, image: torch.Tensor) -> torch.jit.ScriptModule:
    return torch.jit.trace(model, (image,), strict=False, check_trace=False)


def _written(folder: Path, module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    folder.mkdir()
    module.save(str(folder / MODULE))
    return torch.jit.load(str(folder / MODULE), map_location="cpu").eval()


def main() -> None:
    job = export.Job.from_arguments()
    for category in (DeprecationWarning, torch.jit.TracerWarning):  # torch.jit: it is what TorchServe loads
        warnings.filterwarnings("ignore", category=category)
    torch.set_num_threads(threads())
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    with torch.no_grad():
        forms = candidates(job.network, job.work)
    with torch.inference_mode():
        images = torch.from_numpy(job.pictures[:PICTURES])
        taken_ms = milliseconds_a_picture({form: partial(call, images) for form, call in forms.items()})
        fastest = min((form for form in forms if (job.work / form / MODULE).exists()), key=taken_ms.__getitem__)

        def outputs(pictures: export.Bytes) -> dict[str, export.Floats]:
            return {name: tensor.numpy() for name, tensor in forms[fastest](torch.from_numpy(pictures)).items()}

        job.finish(fastest, taken_ms, outputs)


if __name__ == "__main__":
    main()
