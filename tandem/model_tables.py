"""Models and versions as tables for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from tandem.client import Json

_COLOURS = {"ready": "green", "loading": "yellow", "failed": "red", "unavailable": "red"}


def models_table(models: Iterable[Json]) -> Table:
    """A line for each version; what is remarkable about it stands at the end."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "version", "task", "precision", "default", "torch", "tf", "same predictions", ""):
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for model in models:
        for version, proof in model["proofs"].items():
            table.add_row(
                model["name"],
                version,
                model["task"],
                proof["precision"],
                _default(model, version),
                *(_state(model, runtime, version) for runtime in ("torch", "tf")),
                f"{proof['agreeing']} of {proof['pictures']}",
                _remark(proof),
            )
    return table


def version_table(model: Json, version: Json) -> Table:
    """All that is known of one version, a fact a line."""
    table = Table(box=None, pad_edge=False, show_header=False, title_justify="left")
    table.title = f"{model['name']} version {version['version']}"
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")

    def fact(name: str, said: object) -> None:
        table.add_row(name, escape(str(said)))

    proof = model["proofs"][version["version"]]
    fact("task", f"{model['task']}, {len(model['labels'])} labels")
    if default := _default(model, version["version"]):
        fact("default", default)
    fact("precision", version["precision"])
    for name in ("source", "licence", "normalisation"):
        fact(name, version[name])
    fact("input", ", ".join(f"{key} {value}" for key, value in version["input"].items() if value is not None))
    if version["detection"]:
        fact("detection", ", ".join(f"{key} {value}" for key, value in version["detection"].items()))
    fact("agreement", ", ".join(f"{key} {value}" for key, value in version["agreement"].items() if value is not None))
    for runtime, artifact in version["artifacts"].items():
        tried = ", ".join(f"{form} {ms:g} ms" for form, ms in artifact["candidates_ms"].items())
        fact(
            f"{runtime} artifact", f"{artifact['form']}, sha256 {artifact['sha256']}" + (f"; {tried}" if tried else "")
        )
        if artifact["compiled_by"]:
            fact("  compiled", f"for {artifact['compiled_by']}")
    for precision, record in version["parity"].items():
        fact(
            f"parity {precision}",
            f"{record['agreeing']} of {record['pictures']} pictures with the same predictions, "
            f"scores within {record['max_score_difference']:.1g}, {record['distinct']} different answers",
        )
        for output, each in record["outputs"].items():
            fact(
                f"  {output}",
                f"greatest difference {each['max_difference']:.2g}, {each['fraction']:.2g} of the spread"
                f" (tolerance {record['tolerance']:g}), on {each['picture']}",
            )
        for runtime, each in record["against_fp32"].items():
            fact(
                f"  {runtime} against fp32",
                f"{each['agreeing']} of {record['pictures']} pictures with the same predictions, "
                f"scores within {each['max_score_difference']:.1g}",
            )
    if remark := _remark(proof):
        table.add_row("remark", remark)
    for runtime, states in model["runtimes"].items():
        for state in states:
            if state["version"] == version["version"]:
                fact(runtime, state["state"] + (f": {state['reason']}" if state["reason"] else ""))
    return table


def _default(model: Json, version: str) -> str:
    if model["default_version"] == version:
        return "default"
    return "to be default" if model["wanted_version"] == version else ""


def _state(model: Json, runtime: str, version: str) -> str:
    for each in model["runtimes"].get(runtime, ()):
        if each["version"] == version:
            return f"[{_COLOURS[each['state']]}]{each['state']}[/]"
    return ""


def _remark(proof: Json) -> str:
    if proof["mismatch_allowed"]:
        return "[red]the artifacts do not agree; taken nevertheless (mismatch allowed)[/]"
    return "" if proof["proves"] else "[yellow]proves nothing: too few different answers[/]"
