"""`tandem models add`: a source → a package that both runtimes serve, proven to be one model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from gateway.settings import read_settings
from modelkit import children, lifecycle, network, parity, samples, spec
from modelkit import store as stored
from modelkit.children import ROOT, EnvironmentName, StepRefused
from modelkit.exported import Exported, Say, export, timed
from modelkit.files import digest, tree
from modelkit.network import Network
from modelkit.request import AddRequest
from modelkit.spec import DetectionSpec, InputSpec, ModelSpec, OutputSpec, RuntimeName

_YOLO = re.compile(r"yolo[a-z0-9._-]*\.pt", re.IGNORECASE)
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Refused(Exception):
    """The source cannot become a model as asked, or its artifacts are not one model. The message is for the user."""


def reader_of(source: str | None) -> tuple[EnvironmentName, str]:
    """The environment and the module that read a source; None: a pair. Raises Refused."""
    if source is None:
        return "tf", "pair"
    path = Path(source)
    if source.startswith("keras:") or path.suffix == ".keras":
        return "tf", "keras_model"
    if path.suffix == ".onnx":
        return "convert", "onnx_model"
    if path.suffix == ".pt" and (_is_ultralytics(path) or (not path.exists() and _YOLO.fullmatch(path.name))):
        return "ultralytics", "yolo"
    if source.startswith("torchvision:") or path.suffix in (".pt2", ".torchscript", ".pt", ".pth"):
        return "convert", "torch_model"
    if _FACTORY.fullmatch(source):
        return "convert", "torch_model"
    raise Refused(
        f"{source} is not a source that Tandem knows: model.keras, keras:Name, torchvision:name,"
        " package.module:factory, model.pt2, model.torchscript, model.onnx, an Ultralytics checkpoint (.pt), or a pair"
        " with --torch and --tf."
    )


def _is_ultralytics(path: Path) -> bool:
    """Whether a file is a pickle that names Ultralytics' classes. Nothing of it is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return any(b"ultralytics" in archive.read(name) for name in names)
    except (zipfile.BadZipFile, OSError):
        return False


def add(request: AddRequest, store: Path, view: Path, say: Say) -> ModelSpec:
    """Make the model's package and put it where gateways and workers find it. Until the end nothing of it is seen.

    Raises Refused, StepFailed, OSError.
    """
    version = request.version or max((0, *stored.numbers(store / request.name))) + 1
    if (store / request.name / str(version)).exists():
        raise Refused(f"There is a {request.name} version {version} already: give another --version, or none.")
    with lifecycle.staging(store) as folder:
        package = folder / "package"
        package.mkdir()
        convert(request, version, package, say)
        try:
            return lifecycle.publish(package, store, view, say)
        except lifecycle.Refused as error:
            raise Refused(str(error)) from error


def convert(request: AddRequest, version: int, package: Path, say: Say) -> ModelSpec:
    """Fill the empty folder `package` with the model's package. Raises Refused, StepFailed."""
    environment, module = reader_of(request.source)
    precision = request.precision or read_settings().workers.precision
    try:
        names, images = samples.pictures(request.samples)
    except samples.NoSamples as error:
        raise Refused(f"--samples: {error}") from error
    with tempfile.TemporaryDirectory(prefix="tandem-add-") as temporary:
        work = Path(temporary)
        _read(request, environment, module, work, say)
        found = network.read(work)
        if "onnx" in found.tf:
            found = _to_tensorflow(request.name, found, work, say)
        made_input = _input(found)
        np.save(work / "pictures.npy", samples.tensors(images, made_input))
        exported: dict[RuntimeName, Exported] = {
            runtime: _export(request, precision, runtime, work, say) for runtime in spec.RUNTIME_NAMES
        }
        made = _spec(request, precision, version, found, made_input, exported)
        record = parity.compare(
            made,
            {name: each.outputs for name, each in exported.items()},
            names,
            in_fp32={name: each.in_fp32 for name, each in exported.items() if each.in_fp32 is not None},
        )
        report = parity.report(record)
        if not record.passed and not request.allow_mismatch:
            raise Refused(
                f"The two artifacts of {request.name} are not the same model: {report}\n"
                "Nothing was added. --allow-mismatch adds it nevertheless, and marks it."
            )
        say(f"{request.name}: {report}")
        made = made.model_copy(
            update={"parity": {precision: record}, "mismatch_allowed": not record.passed},
        )
        for runtime, each in exported.items():
            shutil.copytree(each.artifact, package / runtime)
        spec.write(made, package)
    return made


def _export(request: AddRequest, precision: spec.Precision, runtime: RuntimeName, work: Path, say: Say) -> Exported:
    try:
        return export(request.name, runtime, work, say, precision, compiled=request.compile)
    except StepRefused as error:
        raise Refused(f"{runtime}: {error}") from error


def ensure(environment: EnvironmentName, say: Say) -> None:
    """Make the environment of a conversion tool, unless it is there or another interpreter is named. Raises Refused."""
    if environment in ("torch", "tf") or os.environ.get(f"TANDEM_{environment.upper()}_PYTHON"):
        return
    command = [sys.executable, "-m", "tandem.bootstrap", f".venv-{environment}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None  # noqa: S101  (it is a pipe)
        lines = []
        try:
            for line in child.stdout:
                lines.append(line.rstrip())
                say(lines[-1])
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise Refused(f"The environment .venv-{environment} could not be made: {lines[-1] if lines else ''}")


def _read(request: AddRequest, environment: EnvironmentName, module: str, work: Path, say: Say) -> None:
    ensure(environment, say)
    (work / "request.json").write_text(request.model_dump_json())
    with timed(f"{request.name}: reading {_shown(request)}", say):
        _step(environment, f"modelkit.sources.{module}", work, f"--request={work / 'request.json'}", f"--work={work}")


def _to_tensorflow(name: str, found: Network, work: Path, say: Say) -> Network:
    ensure("convert", say)
    with timed(f"{name}: converting from ONNX to TensorFlow", say):
        _step("convert", "modelkit.onnx_to_tf", work, f"--network={work}")
    converted = Network(**{**vars(found), "tf": {"saved_model": str(work / "network-tf")}})
    converted.write(work)
    return converted


def _step(environment: EnvironmentName, module: str, work: Path, *arguments: str) -> None:
    try:
        children.run_refusable(environment, module, work, *arguments)
    except StepRefused as refusal:
        raise Refused(str(refusal)) from None


def _shown(request: AddRequest) -> str:
    if request.source is None:
        return "the pair"
    return request.source if ":" in request.source else Path(request.source).name


def _input(found: Network) -> InputSpec:
    try:
        return InputSpec(height=found.height, width=found.width, **found.facts["input"])
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"The input is not possible: {first['msg']}.") from error


_MEANING: dict[str, Any] = {name: name for name in (*spec.OUTPUT_NAMES["segment"], "candidates")}


def _spec(
    request: AddRequest,
    precision: spec.Precision,
    version: int,
    found: Network,
    made_input: InputSpec,
    exported: dict[RuntimeName, Exported],
) -> ModelSpec:
    facts = found.facts
    meaning = _MEANING | ({"scores": facts["meaning"]} if facts["task"] == "classify" else {})
    outputs = exported["torch"].outputs
    if unknown := sorted(set(outputs) - set(meaning)):
        raise Refused(
            f"The torch artifact returns {', '.join(unknown)}; a model that can {facts['task']} returns"
            f" {', '.join(spec.OUTPUT_NAMES[facts['task']])}."
        )
    try:
        return ModelSpec(
            name=request.name,
            version=version,
            task=facts["task"],
            labels=tuple(facts["labels"]),
            input=made_input,
            outputs={name: OutputSpec(shape=array.shape[1:], meaning=meaning[name]) for name, array in outputs.items()},
            detection=None if facts["task"] == "classify" else DetectionSpec(**facts["detection"]),
            agreement=request.agreement,
            normalisation=str(found.entrance)
            if found.entrance is not None
            else "inside the artifacts as they were given",
            licence=request.licence or facts.get("licence") or "not stated",
            source=facts["source"],
            source_sha256=_source_digest(request),
            artifacts={runtime: each.record for runtime, each in exported.items()},
            precision=precision,
            parity={},
        )
    except ValidationError as error:
        raise Refused(f"This cannot become a model: {error.errors()[0]['msg']}.") from error


def _source_digest(request: AddRequest) -> str:
    """Digest of the files that the request names; of none where it names a model of a zoo."""
    named = (request.source, request.weights, request.torch, request.tf)
    paths = [Path(each) for each in named if each is not None and Path(each).exists()]
    files = [file for path in paths for file in (tree(path) if path.is_dir() else [path])]
    return digest(files, Path("/"))
