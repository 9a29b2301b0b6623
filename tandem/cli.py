"""`tandem`: the command line.

Exit codes: 0 all is well; 1 the gateway refused or failed a request or one side of a comparison, the stack could not be
started, or a requirement of a report is broken; 2 wrong usage, or a picture that cannot be read; 3 no gateway answers;
4 it is not known yet whether a requirement holds.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tandem import (
    models_add,  # noqa: F401  # gives `tandem models` the commands add and verify
    models_scale,  # noqa: F401  # and scale
    report_cli,
    tables,
)
from tandem.client import Client, Json, NotReachable, Question, Refused, in_one_line
from tandem.disagreements_cli import disagreements
from tandem.keys import KEY_FILE, open_client
from tandem.keys_cli import keys
from tandem.models_cli import models
from tandem.preflight import Problem
from tandem.routing_cli import routing
from tandem.terminal import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, Url, console, fail

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One vision model on two runtimes, behind one endpoint.",
    epilog="Exit codes: 0 well; 1 refused, failed, or a requirement broken; 2 wrong usage or unreadable picture; 3 no "
    "gateway answers; 4 it is not known yet whether a requirement holds.",
)

app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.add_typer(routing, name="routing")
app.command()(disagreements)
app.command()(report_cli.report)

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures; each is one request, in this order.")]
Model = Annotated[str | None, typer.Option(help="The model; may be left out where there is only one.")]
Version = Annotated[int | None, typer.Option(min=1, help="The model's version; by default its default version.")]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Most classes for each picture.")]
Timeout = Annotated[int | None, typer.Option("--timeout-ms", min=1, help="Deadline of each request, in milliseconds.")]
Report = tuple[Table, Callable[[Table, Path, Json], None]]
"""The table, and what adds an answer to it."""

AsJson = Annotated[bool, typer.Option("--json", help="The gateway's JSON, one line for each picture.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tandem {importlib.metadata.version('tandem-serving')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version and end.")
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TANDEM_API_KEY_FILE",
            help="File with the key for the gateway; else TANDEM_API_KEY has it. The local stack needs none.",
        ),
    ] = None,
) -> None:
    KEY_FILE.set(key_file)


@app.command()
def up() -> None:
    """Start both runtimes and the gateway here, and keep them running until Ctrl-C."""
    from tandem.up import up as run

    try:
        run()
    except Problem as problem:
        fail(str(problem), EXIT_FAILED)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """Say what this machine has of what the stack needs, and what is wrong. Ends with 1 if something is."""
    from tandem.doctor import examine
    from tandem.stack import read_settings

    try:
        findings = list(examine(read_settings()))
    except Problem as problem:
        fail(str(problem), EXIT_USAGE)
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(vars(finding), ensure_ascii=False))
    else:
        console().print(tables.doctor_table(findings))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def predict(
    images: Images,
    url: Url = None,
    model: Model = None,
    runtime: Annotated[str | None, typer.Option(help="torch, tf or auto: as the model's policy says.")] = None,
    version: Version = None,
    top_k: TopK = None,
    timeout_ms: Timeout = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write each picture with its predictions drawn, as a PNG, to this folder."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask one runtime what is in each picture."""
    question = Question(runtime, version, top_k, timeout_ms)
    report = None if as_json else (tables.predict_table(), tables.predict_row)
    _ask("predict", images, url, model, question, report, draw)


@app.command()
def compare(
    images: Images,
    url: Url = None,
    model: Model = None,
    targets: Annotated[
        str | None, typer.Option(metavar="A,B", help="Two others than torch,tf, such as torch@1,torch@2.")
    ] = None,
    version: Version = None,
    top_k: TopK = None,
    timeout_ms: Timeout = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="One after the other: fairer where both share cores.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask both runtimes what is in each picture, and whether they agree."""
    question = Question(None, version, top_k, timeout_ms, targets, "sequential" if sequential else None)
    _ask("compare", images, url, model, question, None if as_json else (tables.compare_table(), tables.compare_row))


def _ask(
    what: str,
    images: list[Path],
    url: str | None,
    model: str | None,
    question: Question,
    report: Report | None,
    drawings: Path | None = None,
) -> None:
    """One request for each picture: one that is refused does not take others with it, and no limit on a request's size
    or number of pictures stands in the way. Without a report the answers are printed as JSON. A drawing is a request
    of its own."""
    for image in images:
        if not image.is_file():
            fail(f"{image} is a folder." if image.is_dir() else f"There is no file {image}.", EXIT_USAGE)
    if drawings is not None:
        _prepare_folder(drawings, images)
    failures: list[str] = []
    with open_client(url) as client:
        try:
            name = model or _only_model(client)
            for image in images:
                answer, problems = _answer(client, what, name, image, question)
                if drawings is not None and not problems:
                    problems += _draw(client, name, image, question, drawings)
                failures += [f"{image}: {in_one_line(problem)}" for problem in problems]
                if report is None:
                    typer.echo(json.dumps(answer, ensure_ascii=False))
                elif answer in problems:
                    tables.failed_row(report[0], image, answer)
                else:
                    report[1](report[0], image, answer)
        except OSError as error:
            fail(f"{error.filename} cannot be read: {error.strerror}.", EXIT_USAGE)
        except Refused as refused:
            fail(str(refused), EXIT_FAILED)
        except NotReachable as error:
            fail(str(error), EXIT_UNREACHABLE)
        finally:
            if report is not None and report[0].row_count:
                console().print(report[0])
            for failure in failures:
                typer.echo(failure, err=True)
    if failures:
        raise typer.Exit(EXIT_FAILED)


def _answer(client: Client, what: str, model: str, image: Path, question: Question) -> tuple[Json, list[Json]]:
    """The gateway's answer, and the problems: the answer itself, or those of one side of a comparison."""
    try:
        answer = client.ask(what, model, image, question)
    except Refused as refused:
        return refused.problem, [refused.problem]
    return answer, [part["error"] for part in answer.get("runtimes", {}).values() if "error" in part]


def _prepare_folder(folder: Path, images: list[Path]) -> None:
    targets = Counter(_drawing_of(image, folder) for image in images)
    for target, count in targets.items():
        if count > 1:
            fail(f"Several pictures would be drawn to {target}. Draw them to different folders.", EXIT_USAGE)
        if target.resolve() in {image.resolve() for image in images}:
            fail(f"The drawing would take the place of the picture {target}. Name another folder.", EXIT_USAGE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{folder} cannot be made: {error.strerror}.", EXIT_USAGE)


def _draw(client: Client, model: str, image: Path, question: Question, folder: Path) -> list[Json]:
    """Write the drawn picture into `folder`; the problem, if there was one."""
    try:
        drawn = client.draw(model, image, question)
    except Refused as refused:
        return [refused.problem]
    path = _drawing_of(image, folder)
    try:
        path.write_bytes(drawn)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}.", EXIT_USAGE)
    return []


def _drawing_of(image: Path, folder: Path) -> Path:
    return folder / f"{image.stem}.png"


def _only_model(client: Client) -> str:
    names = [str(model["name"]) for model in client.models()]
    if len(names) != 1:
        known = f"there are {', '.join(names)}" if names else "the gateway serves none"
        fail(f"Say which model with --model: {known}.", EXIT_USAGE)
    return names[0]
