"""A report as one HTML page that opens offline, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from evidence.document import Comparison
from tandem.report import content
from tandem.report.charts import charts
from tandem.report.content import Table
from tandem.report.disagreements import Kept
from tandem.report.load import LoadRun
from tandem.report.requirement import Judged

READING = (
    "One look: 95 % if you look once, at a time chosen beforehand. Any number of looks: 95 % over all looks together, "
    "however often and until whenever you look, as long as the start of counting is the same. That a target is faster "
    "is claimed by the second kind only; so are requirements judged, but for those about p50_ms, p95_ms and p99_ms.",
    "A ratio is the median, over pairs of requests about the same picture, of the first target's latency over the "
    "second's: the typical pair. What bursts do shows in the ratios of p95 and p99.",
    "Where neighbouring requests are alike they count for fewer than they are. Without enough of them there is no "
    "interval, and it says about how many it takes.",
)


def html(comparison: Comparison, judged: Sequence[Judged], load: Sequence[LoadRun], kept: Sequence[Kept] = ()) -> str:
    environment = Environment(
        loader=PackageLoader("tandem.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        title=content.title(comparison),
        verdict=comparison.verdict,
        kind=_kind(comparison),
        warnings=content.warnings(comparison),
        period=content.period(comparison),
        charts=list(charts(comparison)),
        summary=list(content.summary(comparison, judged)),
        details=list(content.details(comparison, load, kept)),
        drawn=[each for each in kept if each.drawing is not None],
        reading=READING,
    )


def markdown(
    comparison: Comparison, judged: Sequence[Judged], load: Sequence[LoadRun], kept: Sequence[Kept] = ()
) -> str:
    """Without charts."""
    lines = [f"# {content.title(comparison)}", "", f"**{comparison.verdict}**", ""]
    if warnings := content.warnings(comparison):
        lines += [*(f"- {warning}" for warning in warnings), ""]
    lines.append(content.period(comparison))
    for table in (*content.summary(comparison, judged), *content.details(comparison, load, kept)):
        lines += ["", f"## {table.title}", *_rows(table)]
        if table.note:
            lines += ["", table.note]
    return "\n".join([*lines, "", "## How to read it", *READING, ""])


def _rows(table: Table) -> list[str]:
    return [_row(table.header), _row(["---"] * len(table.header)), *map(_row, table.rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _kind(comparison: Comparison) -> str:
    if comparison.finding == "do not compare":
        return "do-not-compare"
    return "found" if comparison.finding in ("faster", "alike") else "open"
