"""`tandem report`: which target to ship, as a page, as Markdown, and as an exit status for CI."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from evidence.document import Comparison
from tandem.keys import open_client
from tandem.models_cli import gateway_says
from tandem.report.content import warnings
from tandem.report.disagreements import Kept, read_kept
from tandem.report.load import LoadRun, parse_price, read_load
from tandem.report.requirement import Judged, Requirement, State
from tandem.terminal import EXIT_FAILED, EXIT_USAGE, Url, fail

EXIT_NOT_KNOWN = 4
"""A requirement is not known to hold yet."""

T = TypeVar("T")


def report(
    model: Annotated[str, typer.Option(help="The model.")],
    url: Url = None,
    window: Annotated[
        str | None, typer.Option(help="How far back to look at least: 15m, 1h, 7d. By default 1h.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="When to start instead: 2026-03-31T08:00:00Z.")] = None,
    a: Annotated[
        str | None, typer.Option("--a", help="First target: torch, tf@2, …; by default the policy's two, or torch.")
    ] = None,
    b: Annotated[str | None, typer.Option("--b", help="Second target; the same: against itself.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page to this file; it opens offline.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The gateway's JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The report as Markdown.")] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE<=NUMBER", help="End with 1 if it is broken, with 4 if that is not known yet."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, max=50, help="Draw so many disagreements into the page. Pictures are private.")
    ] = 0,
    load: Annotated[Path | None, typer.Option(metavar="FILE", help="A load run's summary: throughput, cost.")] = None,
    price: Annotated[
        list[str] | None, typer.Option(metavar="RUNTIME=PRICE", help="What an hour of its workers costs.")
    ] = None,
) -> None:
    """Which of two targets is faster, by how much, how certain that is, and whether the two agree.

    tandem report --model digits --window 1h --out report.html

    tandem report --model digits --require 'p95_ratio<=1.05' --require 'agreement>=0.99'
    """
    if as_json and as_markdown:
        fail("--json and --markdown both write to the standard output: give one of them.", EXIT_USAGE)
    if window and since:
        fail("--window and --since both say when to start: give one of them.", EXIT_USAGE)
    if price and load is None:
        fail("A cost is only known from a load run: give its summary with --load, see docs/report.md.", EXIT_USAGE)
    requirements = _usage(lambda: [Requirement.parse(each) for each in require or ()])
    prices = _usage(lambda: dict(parse_price(each) for each in price or ()))
    runs = _usage(lambda: read_load(load, prices)) if load else []
    asked = {"model": model, "window": window, "since": since, "a": a, "b": b}
    if pictures and out is None:
        fail("--pictures draws into the page: name its file with --out.", EXIT_USAGE)
    with open_client(url) as client, gateway_says():
        answer = client.comparison({name: value for name, value in asked.items() if value is not None})
        try:
            comparison = Comparison.model_validate(answer)
        except ValidationError:
            fail("The gateway's answer is of another version of Tandem than this command.", EXIT_FAILED)
        kept = read_kept(client, comparison, pictures) if out is not None or as_markdown else []
    judged = _usage(lambda: [each.judge(comparison) for each in requirements])
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    _show(comparison, judged, runs, kept, out, "json" if as_json else "markdown" if as_markdown else "line")
    if status := _exit_status(judged):
        raise typer.Exit(status)


def _show(
    comparison: Comparison,
    judged: Sequence[Judged],
    load: Sequence[LoadRun],
    kept: Sequence[Kept],
    out: Path | None,
    form: str,
) -> None:
    if out is not None:
        from tandem.report.rendering import html  # with jinja2, which only a report needs

        try:
            out.write_text(html(comparison, judged, load, kept), encoding="utf-8")
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}.", EXIT_USAGE)
    if form == "markdown":
        from tandem.report.rendering import markdown

        typer.echo(markdown(comparison, judged, load, kept), nl=False)
    elif form == "line":
        for line in [*warnings(comparison), comparison.verdict]:
            typer.echo(line)
    for each in judged:
        typer.echo(str(each), err=form != "line")


def _exit_status(judged: Sequence[Judged]) -> int:
    states = {each.state for each in judged}
    return EXIT_FAILED if State.BROKEN in states else EXIT_NOT_KNOWN if State.UNKNOWN in states else 0


def _usage(read: Callable[[], T]) -> T:
    """What it returns; a mistake in what the user gave ends the command."""
    try:
        return read()
    except ValueError as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}.", EXIT_USAGE)
