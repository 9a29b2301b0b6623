"""Prometheus's rules use what is really measured, and the docs describe them. `make test-monitoring` runs them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from gateway.settings import Settings
from tests.support import dashboards
from tests.support.series import foreign, known, rules, used
from tests.support.stack import ROOT

MONITORING = ROOT / "monitoring"
ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = list(dict.fromkeys(alert["alert"] for alert in ALERTS))


def expressions() -> dict[str, str]:
    """Every query of a rule, a panel or a variable, in PromQL, by where it is."""
    found = {f"{rule.get('record') or rule['alert']} {n}": rule["expr"] for n, rule in enumerate(rules())}
    for n, query in enumerate(dashboards.queries()):
        of_label = re.fullmatch(r"label_values\((.*), (\w+)\)", query.expression)
        found[f"{query.where} {n}"] = f"count by ({of_label[2]}) ({of_label[1]})" if of_label else query.expression
    return found


@pytest.mark.parametrize("expression", [pytest.param(text, id=where) for where, text in expressions().items()])
def test_series_and_their_labels_exist(expression: str) -> None:
    exist, series, others = known(), used(expression), foreign(expression)
    assert series or others
    for name, labels in series.items():
        assert name in exist, name
        assert labels <= exist[name], name
    if not others:
        kept = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r",\s*", labels)}
        assert kept <= set().union(*(exist[name] for name in series))


def test_recorded_series_are_named_after_the_labels_that_are_left() -> None:
    for rule in rules():
        if "record" in rule:
            left = set(rule["record"].split(":")[0].split("_"))
            for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
                assert set(re.split(r",\s*", labels)) - {"le"} == left, rule["record"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_it_is_and_links_to_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{str(alert['alert']).lower()}"


def test_the_runbooks_are_those_of_the_alerts_and_answer_the_same_three_questions() -> None:
    _, *sections = re.split(r"^### (Tandem\w+)$", (ROOT / "docs" / "operations.md").read_text(), flags=re.MULTILINE)
    runbooks = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(runbooks) == NAMES
    for name, text in runbooks.items():
        assert re.findall(r"^\*\*([\w ]+)\.\*\*", text, re.MULTILINE) == ["Means", "Look at", "Do"], name


def test_every_alert_is_seen_firing_in_a_unit_test() -> None:
    fired = set()
    for path in (MONITORING / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            fired |= {each["alertname"] for each in case.get("alert_rule_test", []) if each["exp_alerts"]}
    assert fired == set(NAMES)


def configuration(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((MONITORING / name).read_text()))


def test_the_embedded_stack_is_scraped_as_the_one_in_docker_on_its_default_ports() -> None:
    docker, embedded = configuration("prometheus.yml"), configuration("prometheus-embedded.yml")
    jobs = {job["job_name"]: job for job in docker["scrape_configs"] if job["job_name"] != "gpu"}
    defaults = Settings()
    ports = {"gateway": defaults.http.port, "torch": defaults.torch.metrics_port, "tf": defaults.tf.rest_port}
    for job in embedded["scrape_configs"]:
        name = job["job_name"]
        assert job.get("metrics_path") == jobs.pop(name).get("metrics_path")
        (target,) = job["static_configs"][0]["targets"]
        assert target.partition(":")[2] == str(ports.get(name, target.partition(":")[2]))
    assert not jobs
    assert docker["rule_files"] == embedded["rule_files"] == ["rules/*.yml"]
    assert docker["global"] == embedded["global"]


def test_the_budgets_alerts_count_with_the_interval_at_which_the_rates_are_recorded() -> None:
    recording = yaml.safe_load((MONITORING / "rules" / "recording.yml").read_text())["groups"]
    (interval,) = (group["interval"] for group in recording if group["name"] == "tandem-errors")
    weights = [re.findall(r"\b(\d+) \* sum_over_time", alert["expr"]) for alert in ALERTS]
    assert {f"{weight}s" for each in weights for weight in each} == {interval}
