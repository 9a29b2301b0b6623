"""A network → TorchScript, or what was compiled of it, in the form that runs fastest here. Runs in the torch worker's
environment.

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

from modelkit import compiled, export
from modelkit.candidates import PICTURES, milliseconds_a_picture
from modelkit.network import Network
from modelkit.reduced import Irreducible
from modelkit.reduced_torch import DTYPES, reduce
from modelkit.script import freeze
from modelkit.sources.common import refuse
from modelkit.whole_torch import Whole
from torch_worker.tuning import available_cpus

MODULE, COMPILED = "model.pt", "model.pt2"
"""What a worker loads: a form that leaves one of these files can be packaged."""
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


def _frozen(form: str, folder: Path, image: torch.Tensor) -> torch.jit.ScriptModule:
    """A form that was written, to be changed."""
    module = torch.jit.load(str(folder / MODULE), map_location="cpu").eval()
    if form != "as-given":
        return module
    return freeze(_traced(Whole(module, None, None, channels_last=True).eval(), image))


def _reduced(forms: list[str], image: torch.Tensor, work: Path, precision: export.Precision) -> dict[str, Form]:
    """The forms that can be packaged, in 16 bits. Raises Irreducible."""
    made: dict[str, Form] = {}
    for form in forms:
        module = _frozen(form, work / form, image)
        reduce(module.graph, DTYPES[precision])
        made[f"{form}-{precision}"] = _written(work / f"{form}-{precision}", module)
    return made


def _compiled(form: str, image: torch.Tensor, work: Path) -> dict[str, Form]:
    """`form`, compiled. Raises NotCompilable."""
    name = form.replace("torchscript", "aotinductor")
    (work / name).mkdir()
    compiled.compile(_frozen(form, work / form, image), image, work / name / COMPILED)
    return {name: torch._inductor.aoti_load_package(str(work / name / COMPILED))}


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
    torch.set_num_threads(available_cpus())  # as in a worker: the fastest form with one is not always it with two
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    try:
        if job.compile:
            compiled.check()
        with torch.no_grad():
            forms, packageable = _forms(job)
    except (Irreducible, compiled.NotCompilable) as error:
        refuse(str(error), job.work)
    with torch.inference_mode():
        images = torch.from_numpy(job.pictures[:PICTURES])
        taken_ms = milliseconds_a_picture({form: partial(call, images) for form, call in forms.items()})
        fastest = min(packageable, key=taken_ms.__getitem__)
        in_fp32 = None if job.precision == "fp32" else _run(forms[_in_fp32(forms, job.work)[0]])
        by = compiled.here() if (job.work / fastest / COMPILED).exists() else None
        job.finish(fastest, taken_ms, _run(forms[fastest]), in_fp32, by)


def _forms(job: export.Job) -> tuple[dict[str, Form], list[str]]:
    """Every form to be timed, and which of them can be packaged. Raises Irreducible, NotCompilable."""
    image = torch.zeros((2, job.network.height, job.network.width, 3), dtype=torch.uint8)
    forms = candidates(job.network, job.work)
    wanted = _in_fp32(forms, job.work)
    if job.precision != "fp32":
        reduced = _reduced(wanted, image, job.work, job.precision)
        forms |= reduced
        wanted = list(reduced)
    if job.compile:
        more = _compiled(wanted[-1], image, job.work)
        forms |= more
        wanted += more
    return forms, wanted


def _in_fp32(forms: dict[str, Form], work: Path) -> list[str]:
    """Those of the forms that a worker can load."""
    return [form for form in forms if (work / form / MODULE).exists()]


def _run(call: Form) -> export.Run:
    def outputs(pictures: export.Bytes) -> dict[str, export.Floats]:
        return {name: tensor.numpy() for name, tensor in call(torch.from_numpy(pictures)).items()}

    return outputs


if __name__ == "__main__":
    main()
