"""Which series the rules and dashboards may ask for, and which they do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from gateway.metrics import Metrics
from tests.support.stack import ROOT

RULES = sorted((ROOT / "monitoring" / "rules").glob("*.yml"))
_SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
_SCRAPED = {"job", "instance"}
"""Labels that Prometheus gives to all that it scrapes."""
_PROMETHEUS = {
    "up": _SCRAPED,
    "ALERTS": {"alertname", "alertstate", "severity", "window", "model", "runtime"},
}
# locust's page, which can't be imported here: locust patches the standard library.
_LOAD = {
    "tandem_load_users": {"user_class"},
    "tandem_load_requests_total": {"name"},
    "tandem_load_failures_total": {"name"},
    "tandem_load_response_seconds_bucket": {"name", "le"},
}

Series = dict[str, set[str]]


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def known() -> Series:
    """The gateway's series, locust's, Prometheus's own, and what the recording rules make; each with its labels."""
    recorded = {rule["record"]: set(rule["record"].split(":")[0].split("_")) for rule in rules() if "record" in rule}
    return {**_measured(), **_LOAD, **recorded, **_PROMETHEUS}


def used(expression: str) -> Series:
    """Names of those series in a PromQL expression, each with the labels that its selector names."""
    bare = _without_strings(expression)
    series: Series = {}
    for name, selector in re.findall(
        r"(?<![\w:])((?:[a-z_]+:)?tandem_[\w:]+|process_\w+|up|ALERTS)\b(?:\{([^}]*)\})?", bare
    ):
        series.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", selector))
    return series


def foreign(expression: str) -> set[str]:
    """Names of the series that others make: the workers and a GPU's exporter."""
    return set(
        re.findall(
            r"(?<![\w:])(:tensorflow:[\w:]+|ts_\w+|handler_\w+|QueueTime_\w+|WorkerThreadTime_\w+|DCGM_\w+)",
            _without_strings(expression),
        )
    )


def _without_strings(expression: str) -> str:
    return re.sub(r'"[^"]*"', '""', expression)


def _measured() -> Series:
    metrics = Metrics(CollectorRegistry())
    series = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            for suffix in _SUFFIXES[family.type]:
                series[family.name + suffix] = {
                    *_SCRAPED,
                    *metric._labelnames,
                    *(["le"] if suffix == "_bucket" else []),
                }
    return series
