"""Prometheus's rules and Grafana's dashboards use what the gateway really measures, and the docs describe them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from gateway.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((MONITORING / "rules").glob("*.yml"))
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)

Series = dict[str, set[str]]


class Query(NamedTuple):
    where: str
    expression: str


def measured() -> Series:
    """Names of the gateway's series, each with its labels."""
    metrics = Metrics(CollectorRegistry())
    series = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            for suffix in SUFFIXES[family.type]:
                series[family.name + suffix] = {*metric._labelnames, *(["le"] if suffix == "_bucket" else [])}
    return series


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def known() -> Series:
    """The gateway's series, Prometheus's own, and those that the recording rules make."""
    recorded = {rule["record"]: set(rule["record"].split(":")[0].split("_")) for rule in rules() if "record" in rule}
    return {
        **measured(),
        **recorded,
        "up": {"job"},
        "ALERTS": {"alertname", "alertstate", "severity", "model", "runtime"},
    }


def dashboard(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def queries() -> Iterator[Query]:
    for rule in rules():
        yield Query(rule.get("record") or rule["alert"], rule["expr"])
    for path in DASHBOARDS:
        for panel in dashboard(path)["panels"]:
            for target in panel["targets"]:
                yield Query(f"{path.stem}: {panel['title']}", target["expr"])
        for variable in dashboard(path)["templating"]["list"]:
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            yield Query(f"{path.stem}: ${variable['name']}", f"count by ({label}) ({selector})")


def used(expression: str) -> Series:
    """Names of series in a PromQL expression, each with the labels that its selector names."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    series: Series = {}
    for name, selector in re.findall(r"\b((?:[a-z_]+:)?tandem_[\w:]+|up|ALERTS)\b(?:\{([^}]*)\})?", bare):
        series.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", selector))
    return series


every_query = pytest.mark.parametrize("query", [pytest.param(each, id=each.where) for each in queries()])


@every_query
def test_series_and_their_labels_exist(query: Query) -> None:
    exist = known()
    series = used(query.expression)
    assert series
    for name, labels in series.items():
        assert name in exist, name
        assert labels <= exist[name], name
    kept = {
        label for labels in re.findall(r"\bby \(([^)]*)\)", query.expression) for label in re.split(r",\s*", labels)
    }
    assert kept <= set().union(*(exist[name] for name in series))


def test_recorded_series_are_named_after_the_labels_that_are_left() -> None:
    for rule in rules():
        if "record" in rule:
            left = set(rule["record"].split(":")[0].split("_"))
            for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
                assert set(re.split(r",\s*", labels)) - {"le"} == left, rule["record"]


@every_dashboard
def test_dashboards_say_what_every_panel_shows_in_which_unit(path: Path) -> None:
    for panel in dashboard(path)["panels"]:
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@every_dashboard
def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other(path: Path) -> None:
    panels = dashboard(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@every_dashboard
def test_panels_and_variables_ask_the_provisioned_data_source(path: Path) -> None:
    provisioning = MONITORING / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(provisioning.read_text())["datasources"]
    board = dashboard(path)
    for part in [*board["panels"], *board["templating"]["list"]]:
        assert part["datasource"] == {"type": source["type"], "uid": source["uid"]}


@every_dashboard
def test_links_between_dashboards_lead_somewhere(path: Path) -> None:
    uids = {dashboard(each)["uid"] for each in DASHBOARDS}
    for link in dashboard(path)["links"]:
        assert link["url"].removeprefix("/d/") in uids


def test_dashboards_have_uids_and_titles_of_their_own() -> None:
    boards = [dashboard(path) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards) > 0


def test_every_alert_says_how_bad_it_is_and_leads_to_a_section_that_says_what_to_do() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    alerts = [rule for rule in rules() if "alert" in rule]
    for alert in alerts:
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{alert['alert'].lower()}"
    assert re.findall(r"^### (Tandem\w+)$", page, re.MULTILINE) == [alert["alert"] for alert in alerts]


def test_prometheus_reads_the_folder_of_rules() -> None:
    assert yaml.safe_load((MONITORING / "prometheus.yml").read_text())["rule_files"] == ["rules/*.yml"]
