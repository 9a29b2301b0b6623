"""Every query of the dashboards, asked as Grafana would ask it."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.stack import ROOT

DASHBOARDS = sorted((ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json"))
SCRAPE_INTERVAL_S = 5
"""As the provisioned data source says; Grafana makes $__rate_interval of it."""
_RANGE_S = 60
_ALL = "$__all"


@dataclass(frozen=True)
class Query:
    """A query of a panel, or what a variable takes its values from."""

    dashboard: str
    title: str
    """Of the panel, or the variable's name behind a $."""
    expression: str
    """PromQL with Grafana's variables, or `label_values(selector, label)`."""
    instant: bool = False

    @property
    def where(self) -> str:
        return f"{self.dashboard}: {self.title}"

    @property
    def gpu(self) -> bool:
        """Whether only the exporter of a GPU's figures has an answer."""
        return "DCGM_" in self.expression


@dataclass(frozen=True)
class Series:
    labels: Mapping[str, str]
    values: Sequence[float]
    """In the order of time; one for an instant query, none for a value of a variable."""


def board(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that shows something, those inside collapsed rows too."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def queries() -> Iterator[Query]:
    """All queries of all dashboards, in the order of the files."""
    for path in DASHBOARDS:
        each = board(path)
        for variable in each["templating"]["list"]:
            yield Query(path.stem, f"${variable['name']}", variable["query"]["query"], instant=True)
        for panel in panels(each):
            for target in panel["targets"]:
                yield Query(path.stem, panel["title"], target["expr"], target.get("instant", False))


def chosen(dashboard: str, values: Mapping[str, str]) -> dict[str, str]:
    """What Grafana puts in the place of each variable of `dashboard` when a viewer has chosen `values`, by default All.

    Raises LookupError for a variable that has no All and is not in `values`.
    """
    (path,) = (each for each in DASHBOARDS if each.stem == dashboard)
    texts = {}
    for variable in board(path)["templating"]["list"]:
        name = variable["name"]
        value = values.get(name, _ALL if variable.get("includeAll") else None)
        if value is None:
            raise LookupError(f"{dashboard}: ${name} has no All: name a value for it")
        if value == _ALL:
            texts[name] = variable["allValue"]
        elif variable.get("multi"):
            texts[name] = re.sub(r"([\\^$.*+?()|\[\]{}])", r"\\\\\1", value)
        else:
            texts[name] = value.replace("\\", "\\\\").replace('"', '\\"')
    return texts


def interpolated(query: Query, values: Mapping[str, str], *, range_s: int = _RANGE_S, step_s: int = 5) -> str:
    """The expression that Grafana sends. Raises LookupError for a variable that it would not know."""
    texts = {
        **chosen(query.dashboard, values),
        "__interval": f"{step_s}s",
        "__interval_ms": str(step_s * 1000),
        "__rate_interval": f"{max(step_s + SCRAPE_INTERVAL_S, 4 * SCRAPE_INTERVAL_S)}s",
        "__range": f"{range_s}s",
        "__range_s": str(range_s),
        "__range_ms": str(range_s * 1000),
    }

    def text(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in texts:
            raise LookupError(f"{query.where}: Grafana knows no variable ${name}")
        return texts[name]

    return re.sub(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))", text, query.expression)


def run(url: str, query: Query, values: Mapping[str, str]) -> list[Series]:
    """What the Prometheus at `url` answers `query` over the last minute, with the variables set to `values`.

    Raises ValueError with Prometheus's message when it does not accept the query.
    """
    expression = interpolated(query, values)
    if of_label := re.fullmatch(r"label_values\((.*), (\w+)\)", expression):
        selector, label = of_label.groups()
        data = _ask(f"{url}/api/v1/label/{label}/values", {"match[]": selector})
        return [Series({label: value}, []) for value in data]
    if query.instant:
        data = _ask(f"{url}/api/v1/query", {"query": expression})
        return [Series(each["metric"], [float(each["value"][1])]) for each in data["result"]]
    now_s = time.time()
    data = _ask(
        f"{url}/api/v1/query_range",
        {"query": expression, "start": str(now_s - _RANGE_S), "end": str(now_s), "step": "5"},
    )
    return [Series(each["metric"], [float(value) for _, value in each["values"]]) for each in data["result"]]


def fault(answer: Sequence[Series]) -> str | None:
    """Why a viewer would see nothing, or nothing at the right edge, in the panel; None where all is well."""
    if not answer:
        return "no series"
    for series in answer:
        if series.values and math.isnan(series.values[-1]):
            return f"NaN of {dict(series.labels)}"
    return None


def faults(url: str, asked: Sequence[Query], values: Mapping[str, str]) -> list[str]:
    """The panels of `asked` that are empty with `values` chosen, and what Prometheus was asked for them."""
    return [
        f"{query.where}: {found} from {interpolated(query, values)}"
        for query in asked
        if (found := fault(run(url, query, values)))
    ]


def _ask(url: str, parameters: Mapping[str, str]) -> Any:
    answer = httpx.get(url, params=parameters, timeout=30).json()
    if answer["status"] != "success":
        raise ValueError(f"{parameters}: {answer['error']}")
    return answer["data"]
