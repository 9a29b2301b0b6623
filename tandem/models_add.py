"""`tandem models add` and `tandem models verify`: a source becomes a model, and its proof is repeated."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from tandem.client import Json
from tandem.keys import open_client
from tandem.models_cli import AsJson, Name, Wait, await_default, gateway_says, models, running
from tandem.terminal import EXIT_FAILED, EXIT_USAGE, Url, fail, settings_here

if TYPE_CHECKING:
    from modelkit.spec import ParityRecord

JOB_POLL_S = 1.0


@models.command()
def add(
    name: Annotated[str, typer.Option("--name", help="The model's name.")],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="model.keras, keras:Name, torchvision:name, package.module:factory, model.pt2, model.torchscript,"
            " model.onnx, or an Ultralytics checkpoint (.pt).",
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="By default one more than the greatest there is.")] = None,
    torch: Annotated[Path | None, typer.Option(help="Of a pair: a TorchScript file.")] = None,
    tf: Annotated[Path | None, typer.Option(help="Of a pair: a SavedModel folder.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="A file; imagenet (Keras), DEFAULT (torchvision), or none: random.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="A file, one name a line or a JSON list; or numbers.")] = None,
    task: Annotated[str | None, typer.Option(help="classify, detect or segment.")] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Of the input tensor, e.g. 224x224.")] = None,
    fit: Annotated[str | None, typer.Option(help="stretch, crop or letterbox.")] = None,
    shorter_side: Annotated[int | None, typer.Option(help="For crop: what the shorter side is scaled to.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="nearest, bilinear or bicubic.")] = None,
    antialias: Annotated[bool | None, typer.Option("--antialias/--no-antialias", help="When shrinking.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Subtracted from pixels of 0 to 1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="What they are divided by then.")] = None,
    pixels: Annotated[str | None, typer.Option(help="0..1 or 0..255: what mean and std refer to.")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="The network takes blue, green, red.")] = False,
    activation: Annotated[
        str | None, typer.Option(help="What makes scores of the outputs: none, softmax or sigmoid.")
    ] = None,
    nms: Annotated[bool | None, typer.Option("--nms/--no-nms", help="Whether the head needs it.")] = None,
    agreement: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="When two answers agree, e.g. iou=0.75; may be given several times."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    samples: Annotated[Path | None, typer.Option(help="A folder of pictures for the proof.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16; by default TANDEM_WORKERS__PRECISION.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Try a compiled form for PyTorch besides. Needs a C++ compiler.")
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run code that the source brings along.")] = False,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Take the model though its artifacts do not agree, and mark it.")
    ] = False,
    url: Url = None,
    wait_s: Wait = 120,
    as_json: AsJson = False,
) -> None:
    """Make a package of SOURCE that both runtimes serve, prove that the two agree, and put it into service.

    With --url the gateway there does it, with files of its own machine.
    """
    height, width = _size(size)
    values = {
        "source": source, "torch": torch, "tf": tf, "name": name, "version": version, "task": task, "weights": weights,
        "labels": labels, "height": height, "width": width, "fit": fit, "shorter_side": shorter_side,
        "interpolation": interpolation, "antialias": antialias, "mean": _triple("--mean", mean),
        "std": _triple("--std", std), "pixels": pixels, "bgr": bgr, "activation": activation, "nms": nms,
        "agreement": _tolerances(agreement or []), "licence": licence, "samples": samples, "precision": precision,
        "compile": compiled, "trust": trust, "allow_mismatch": allow_mismatch,
    }  # fmt: skip
    made = _add_here(values) if url is None else _add_there(url, values)
    with running(url) as client:
        if client is not None and wait_s:
            await_default(client, name, int(made["version"]), wait_s)
    if as_json:
        typer.echo(json.dumps(made, ensure_ascii=False))
    else:
        marked = " Its artifacts do not agree: it is marked as such." if made["mismatch_allowed"] else ""
        typer.echo(f"{name} version {made['version']} is added.{marked}")


@models.command()
def verify(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="By default the default version.")] = None,
    samples: Annotated[Path | None, typer.Option(help="A folder of pictures, besides the bundled ones.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Repeat the proof against the running workers. Ends with 1 if they do not agree."""
    from modelkit import parity
    from modelkit.spec import ParityRecord

    if url is None:
        record = _verify_here(name, version, samples)
    else:
        with open_client(url) as client, gateway_says():
            job = client.start(f"/v1/models/{name}/verify", {"version": version, "samples": _text(samples)})
            record = ParityRecord.model_validate(_ended(client, job)["result"])
    typer.echo(record.model_dump_json() if as_json else f"{name}: {parity.report(record)}")
    if not record.passed:
        raise typer.Exit(EXIT_FAILED)


def _add_here(values: dict[str, Any]) -> Json:
    from modelkit import add as adding
    from modelkit import children
    from modelkit.request import AddRequest

    try:
        request = AddRequest.model_validate(values).with_absolute_paths(Path.cwd())
    except ValidationError as error:
        fail(_in_words(error), EXIT_USAGE)
    settings = settings_here()
    settings.store.mkdir(parents=True, exist_ok=True)
    os.environ["TANDEM_SOURCE_FOLDER"] = str(Path.cwd())
    children.end_on_sigterm()
    try:
        made = adding.add(request, settings.store, settings.serving, lambda line: typer.echo(line, err=True))
    except (adding.Refused, children.StepFailed) as error:
        fail(str(error), EXIT_FAILED)
    except OSError as error:
        fail(f"{error.strerror}: {error.filename or settings.store}. Nothing was added.", EXIT_FAILED)
    return made.model_dump(mode="json")


def _add_there(url: str, values: dict[str, Any]) -> Json:
    body = {name: _text(value) if isinstance(value, Path) else value for name, value in values.items()}
    with open_client(url) as client, gateway_says():
        job = client.start("/v1/models", body)
        made: Json = _ended(client, job)["result"]
        return made


def _ended(client: Any, job: Json) -> Json:
    """The job once it has ended; its progress is said meanwhile. Ends the command if it failed."""
    said = 0
    while True:
        for line in job["progress"][said:]:
            typer.echo(line, err=True)
        said = len(job["progress"])
        if job["state"] == "failed":
            fail(str(job["error"]), EXIT_FAILED)
        if job["state"] == "done":
            return job
        time.sleep(JOB_POLL_S)
        job = client.job(job["id"])


def _verify_here(name: str, version: int | None, samples: Path | None) -> ParityRecord:
    import asyncio

    from gateway import log
    from modelkit import samples as pictures
    from modelkit import store as stored
    from modelkit import verify as verifying
    from modelkit.spec import InvalidPackage

    log.only_faults()
    settings = settings_here()
    known = stored.numbers(settings.store / name)
    if not known or version not in (None, *known):
        models = ", ".join(stored.models(settings.store)) if settings.store.is_dir() else ""
        fail(
            f"There is no {name} version {version or ''} in {settings.store}. Models: {models or 'none'}.", EXIT_FAILED
        )
    number = version or stored.wanted_default(settings.store / name, known)
    try:
        made = stored.read(settings.store / name / str(number))
        return asyncio.run(verifying.against_workers(made, settings, samples))
    except (InvalidPackage, verifying.CannotVerify, pictures.NoSamples) as error:
        fail(str(error), EXIT_FAILED)


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    height, _, width = size.lower().partition("x")
    if not height.isdigit() or not width.isdigit():
        fail(f"--size {size} is not HEIGHTxWIDTH, e.g. --size 224x224.", EXIT_USAGE)
    return int(height), int(width)


def _triple(option: str, given: str | None) -> list[float] | None:
    if given is None:
        return None
    try:
        values = [float(each) for each in given.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        fail(f"{option} {given} is not one number or three with commas between, e.g. {option} 0.5,0.5,0.5.", EXIT_USAGE)
    return values * 3 if len(values) == 1 else values


def _tolerances(given: list[str]) -> Json:
    pairs = [each.partition("=") for each in given]
    for key, equals, _ in pairs:
        if not equals:
            fail(f"--agreement {key} is not KEY=VALUE, e.g. --agreement iou=0.75.", EXIT_USAGE)
    return {key: _number_or_text(value) for key, _, value in pairs}


def _number_or_text(value: str) -> float | str:
    """As JSON has it: text that is no number is for the check of the whole to refuse."""
    try:
        return float(value)
    except ValueError:
        return value


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _in_words(error: ValidationError) -> str:
    return " ".join(f"{_option(each['loc'])}{each['msg']}." for each in error.errors())


def _option(place: tuple[int | str, ...]) -> str:
    if not place:
        return ""
    option, *inside = map(str, place)
    return " ".join([f"--{option.replace('_', '-')}", *inside]) + ": "
