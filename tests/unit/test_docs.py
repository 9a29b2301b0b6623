"""The pages in `docs/` name exactly what the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from gateway.metrics import Metrics
from gateway.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*DOCS.rglob("*.md"), *(DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md"))]


def settings_rows(model: type[BaseModel], prefix: str = "TANDEM_") -> Iterator[str]:
    """The rows of docs/settings.md, as they should be."""
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_rows(field.annotation, f"{variable}__")
        else:
            default = "empty" if field.default == "" else f"`{field.default}`"
            yield f"| `{variable}` | {default} | {field.description} |"


def test_the_settings_page_has_every_setting_with_its_default_and_nothing_else() -> None:
    rows = re.findall(r"^\| `TANDEM_.*$", (DOCS / "settings.md").read_text(), re.MULTILINE)
    assert rows == list(settings_rows(Settings))


def test_every_setting_has_a_sentence() -> None:
    assert [row for row in settings_rows(Settings) if not re.search(r"[^|]\. \|$", row)] == []


def test_the_metrics_page_has_every_metric_with_its_labels_and_nothing_else() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    declared = {
        each._name + ("_total" if each._type == "counter" else ""): list(each._labelnames)
        for each in vars(metrics).values()
        if hasattr(each, "_labelnames")
    }
    page = (DOCS / "metrics.md").read_text()
    described = {
        name: labels.split(", ") if labels else []
        for name, labels in re.findall(r"^\| `((?:tandem|process)_\w+)` \| `?([\w, ]*)`? \|", page, re.MULTILINE)
    }
    assert described == declared


def prose(page: Path) -> str:
    """Without code, in which a bracket is no link."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_page_and_a_heading_that_are_there() -> None:
    dead = []
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)\s]*)\)", prose(page)):
            file, _, heading = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            if not target.exists() or (heading and heading not in anchors(target)):
                dead.append(f"{page.name}: {link}")
    assert dead == []


def test_every_alert_leads_to_what_can_be_set() -> None:
    _, _, alerts = (DOCS / "operations.md").read_text().partition("## The alerts")
    sections = re.split(r"^### (\w+)$", alerts, flags=re.MULTILINE)[1:]
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        assert re.search(r"\]\((?!#tandem)", text), name
