"""The gateway's answers as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tandem.client import Json

if TYPE_CHECKING:
    from tandem.doctor import Finding

_MOST_LABELS = 5
"""Of a picture's detections, that are named in a line."""


def keys_table(keys: Sequence[Json], now: datetime) -> Table:
    table = _table("name", "id", "rights", "rate", "made", "valid until")
    for key in keys:
        ends = None if key["expires"] is None else datetime.fromisoformat(key["expires"])
        table.add_row(
            key["name"],
            key["id"],
            ", ".join(sorted(key["rights"])),
            key["rate"] or "",
            moment(datetime.fromisoformat(key["created"])),
            "for ever" if ends is None else f"[red]{moment(ends)}: expired[/]" if ends <= now else moment(ends),
        )
    return table


def moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def predict_table() -> Table:
    return _table("image", "target", "prediction", "score", "also", "total ms")


def predict_row(table: Table, image: Path, answer: Json) -> None:
    """The target that answered, and behind it the runtime that was to and why it did not, where that is another."""
    label, score, also = _best(answer["results"][0]["predictions"])
    total = f"{answer['timing_ms']['total']:.1f}"
    target = f"{answer['runtime']}@{answer['version']}"
    if failed := answer.get("failover"):
        target += f" [yellow](for {failed['from']}: {failed['code']})[/]"
    table.add_row(str(image), target, label, score, also, total)


def compare_table() -> Table:
    return _table("image", "target", "prediction", "score", "rpc ms", "worker ms", "total ms", "agreement")


def compare_row(table: Table, image: Path, answer: Json) -> None:
    """A line for each target; the agreement stands on the first."""
    name, verdict = str(image), _verdict(answer["agreement"])
    for asked, part in answer["runtimes"].items():
        if "error" in part:
            table.add_row(name, asked, f"[red]{part['error']['code']}[/]", "", "", "", "", verdict)
        else:
            label, score, _ = _best(part["results"][0]["predictions"])
            timing = part["timing_ms"]
            target = f"{part['runtime']}@{part['version']}"
            rpc, worker, total = f"{timing['rpc']:.1f}", _worker(part.get("worker", {})), f"{timing['total']:.1f}"
            table.add_row(name, target, label, score, rpc, worker, total, verdict)
        name = verdict = ""


def doctor_table(findings: Iterable[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row("[green]well[/]" if finding.ok else "[red]wrong[/]", finding.what, escape(finding.said))
    return table


def disagreements_table(disagreements: Iterable[Json]) -> Table:
    """A line for each; of the answers the best class and its score, or how many there are of each class."""
    table = _table("id", "time", "model", "request", "target", "said", "target", "said")
    for each in disagreements:
        said = [
            part
            for side in each["answers"]
            for part in (f"{side['runtime']}@{side['version']}", _in_short(side["predictions"]))
        ]
        when = datetime.fromisoformat(each["time"]).astimezone(UTC)
        table.add_row(str(each["id"]), f"{when:%Y-%m-%d %H:%M:%S}Z", each["model"], escape(each["request_id"]), *said)
    return table


def said_in_short(predictions: Sequence[Json]) -> str:
    """The best class and its score, or how many there are of each class, in plain text."""
    return Text.from_markup(_in_short(predictions)).plain


def failed_row(table: Table, image: Path, problem: Json) -> None:
    """A picture the gateway did not answer: nothing is left out of the table."""
    table.add_row(str(image), "", f"[red]{problem.get('code', problem['status'])}[/]")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        is_number = name.endswith(" ms") or name == "score"
        no_wrap = name not in ("image", "agreement")
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=no_wrap)
    return table


def _worker(said: Json) -> str:
    """Queue and inference, as the worker says them; nothing where it says nothing."""
    parts = [said.get("queue_ms"), said.get("inference_ms")]
    return "" if parts == [None, None] else " + ".join("–" if ms is None else f"{ms:.1f}" for ms in parts)


def _in_short(predictions: Sequence[Json]) -> str:
    label, score, _ = _best(predictions)
    return f"{label} {score}" if predictions and "box" not in predictions[0] else label


def _best(predictions: Sequence[Json]) -> tuple[str, str, str]:
    """Label and score of the best prediction, and the next two; of detections, how many there are of each label."""
    if not predictions:
        return "[dim]none[/]", "", ""
    best, *others = predictions
    if "box" in best:
        counts = Counter(each["label"] for each in predictions)
        objects = [f"{number} {escape(label)}" for label, number in counts.most_common(_MOST_LABELS)]
        if len(counts) > _MOST_LABELS:
            objects.append("…")
        return ", ".join(objects), f"{best['score']:.4f}", ""
    also = ", ".join(f"{escape(each['label'])} {each['score']:.4f}" for each in others[:2])
    return escape(best["label"]), f"{best['score']:.4f}", also


def _verdict(agreement: Json | None) -> str:
    if agreement is None:
        return "[yellow]unknown[/]"
    said = ["[green]agree[/]" if agreement["agree"] else "[red]disagree[/]"]
    if "matched" in agreement:
        said.append(f"{agreement['matched']} matched, {agreement['unmatched']} not")
        overlaps = {"boxes": agreement["min_iou"], "masks": agreement.get("min_mask_iou")}
        said += [f"{what} overlap by {iou:.3f}" for what, iou in overlaps.items() if iou is not None]
    return ", ".join([*said, f"scores within {agreement['max_score_difference']:.0e}"])
