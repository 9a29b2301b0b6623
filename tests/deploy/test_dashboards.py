"""The dashboards are whole: panels explained, none on another, alike in their colours, linked to each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import dashboards
from tests.support.dashboards import DASHBOARDS, board, panels
from tests.support.stack import ROOT

GRAFANA = ROOT / "monitoring" / "grafana"
COLOURS = {"torch": "orange", "tf": "blue"}
every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def everything(path: Path) -> list[dict[str, Any]]:
    """Panels and the rows between them."""
    return [*board(path)["panels"], *(inner for row in board(path)["panels"] for inner in row.get("panels", []))]


def test_there_is_a_dashboard_for_each_question() -> None:
    boards = [board(path) for path in DASHBOARDS]
    assert {each["title"] for each in boards} == {"Comparison", "Service", "Workers", "Load test"}
    assert [each["uid"] for each in boards] == [f"tandem-{path.stem}" for path in DASHBOARDS]


@every_dashboard
def test_every_panel_says_what_it_shows_in_which_unit(path: Path) -> None:
    titles = [panel["title"] for panel in panels(board(path))]
    assert all(titles)
    for panel in panels(board(path)):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


@every_dashboard
def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other(path: Path) -> None:
    assert len({panel["id"] for panel in everything(path)}) == len(everything(path))
    taken: set[tuple[int, int]] = set()
    for panel in everything(path):
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
def test_graphs_begin_at_zero_or_are_logarithmic_and_name_their_lines(path: Path) -> None:
    for panel in panels(board(path)):
        if panel["type"] == "timeseries":
            defaults = panel["fieldConfig"]["defaults"]
            logarithmic = defaults["custom"].get("scaleDistribution", {}).get("type") == "log"
            assert logarithmic or defaults["min"] == 0, panel["title"]
            assert panel["options"]["legend"]["showLegend"], panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@every_dashboard
def test_a_runtime_has_the_same_colour_everywhere(path: Path) -> None:
    for panel in panels(board(path)):
        for override in panel["fieldConfig"]["overrides"]:
            for runtime, colour in COLOURS.items():
                if re.match(rf"\^{runtime}\b", override["matcher"]["options"], re.IGNORECASE):
                    (chosen,) = (
                        each["value"]["fixedColor"] for each in override["properties"] if each["id"] == "color"
                    )
                    assert colour in chosen, panel["title"]
        if any(target["legendFormat"] == "{{runtime}}" for target in panel["targets"]) and panel["type"] != "stat":
            named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
            assert all(any(option.startswith(f"^{runtime}") for option in named) for runtime in COLOURS), panel["title"]


@every_dashboard
def test_panels_and_variables_ask_the_provisioned_data_source(path: Path) -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["jsonData"]["timeInterval"] == f"{dashboards.SCRAPE_INTERVAL_S}s"
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    parts = [*panels(board(path)), *board(path)["templating"]["list"]]
    for part in [*parts, *(target for panel in panels(board(path)) for target in panel["targets"])]:
        assert part["datasource"] == {"type": source["type"], "uid": source["uid"]}


@every_dashboard
def test_every_dashboard_leads_to_all_others_and_takes_model_runtime_and_time_along(path: Path) -> None:
    links = board(path)["links"]
    others = {board(each)["uid"] for each in DASHBOARDS if each != path}
    assert {link["url"] for link in links} == {f"/d/{uid}" for uid in others}
    assert all(link["includeVars"] and link["keepTime"] for link in links)
    assert [variable["name"] for variable in board(path)["templating"]["list"]] == ["model", "runtime"]


def test_a_panel_of_failures_has_a_line_at_zero_when_there_are_none() -> None:
    """Else nobody knows whether it is empty because all is well."""
    for query in dashboards.queries():
        if re.search(r'outcome!="ok"|tandem_rejected_total|outcome="disagree"|ALERTS', query.expression):
            assert re.search(r"\bor (on \(\w*\) label_replace\(|vector\(0\))", query.expression), query.where
