"""Under load every panel shows something and no alert fires; on a sick stack they say which runtime it is."""

from __future__ import annotations

import os
import signal

import pytest

from tests.monitoring.conftest import Monitored
from tests.support import dashboards
from tests.support.dashboards import Query

QUERIES = list(dashboards.queries())
WITHOUT_GPU = [query for query in QUERIES if not query.gpu]


# Titles of the panels in which a line at 0 is the good news. In every other one something has to move.
ZERO_WHEN_WELL = {
    "Alerts",
    "Canaries' share",
    "Circuit breakers",
    "Dropped shadows",
    "Error budget's pace",
    "Error ratio",
    "Errors",
    "Failed requests",
    "Failovers",
    "Failures",
    "Firing alerts",
    "Hedges",
    "Queue",
    "Refused",
    "Rows that wait",
    "Shadows",
}


def faults(monitored: Monitored, queries: list[Query], **values: str) -> list[str]:
    return dashboards.faults(monitored.url, queries, {"model": "digits", **values})


def shown(monitored: Monitored, title: str) -> set[tuple[str, ...]]:
    """The labels' values of every series above 0 in the panel `title` of *Comparison* or *Service*."""
    (query,) = (each for each in QUERIES if each.title == title and each.dashboard in {"comparison", "service"})
    answer = dashboards.run(monitored.url, query, {"model": "digits"})
    return {tuple(sorted(series.labels.values())) for series in answer if max(series.values) > 0}


def test_only_the_queries_of_gpus_are_left_out() -> None:
    assert {query.where for query in QUERIES if query.gpu} == {
        "workers: GPU utilisation",
        "workers: GPU memory",
        "workers: GPU memory traffic",
        "workers: GPU power",
        "workers: GPU temperature",
        "workers: GPU clock",
    }


def test_every_query_returns_data_under_load(monitored: Monitored) -> None:
    assert len(WITHOUT_GPU) > 50
    monitored.wait_for(lambda: not faults(monitored, WITHOUT_GPU), lambda: "\n".join(faults(monitored, WITHOUT_GPU)))


def test_a_panel_lies_at_zero_only_where_that_is_good_news(monitored: Monitored) -> None:
    """A counter that is there and never counts looks like an answer."""
    moves: dict[str, bool] = {}
    for query in WITHOUT_GPU:
        if not query.title.startswith("$"):
            answer = dashboards.run(monitored.url, query, {"model": "digits"})
            above = any(value > 0 for series in answer for value in series.values)
            moves[query.where] = moves.get(query.where, False) or above
    still = {where for where, any_above in moves.items() if not any_above}
    assert {where for where in still if where.partition(": ")[2] not in ZERO_WHEN_WELL} == set()


@pytest.mark.parametrize(("runtime", "other"), [("torch", "tf"), ("tf", "torch")], ids=["torch", "tf"])
def test_with_one_runtime_chosen_only_the_other_workers_panels_are_empty(
    monitored: Monitored, runtime: str, other: str
) -> None:
    of_other = (f'job="{other}"', f'runtime="{other}", runtime=~"$runtime"')
    others = [query for query in WITHOUT_GPU if any(each in query.expression for each in of_other)]
    assert faults(monitored, [query for query in WITHOUT_GPU if query not in others], runtime=runtime) == []
    assert len(faults(monitored, others, runtime=runtime)) == len(others) > 0


def test_every_job_but_the_gpus_is_scraped(monitored: Monitored) -> None:
    wanted = {job: [1.0] for job in ("gateway", "torch", "tf", "locust", "prometheus")}

    def up() -> dict[str, list[float]]:
        found = dashboards.run(monitored.url, Query("service", "jobs", "up", instant=True), {"model": "digits"})
        return {series.labels["job"]: list(series.values) for series in found}

    monitored.wait_for(lambda: up() == wanted, up)


def test_a_healthy_stack_under_load_has_no_alert(monitored: Monitored) -> None:
    assert monitored.alerts() == set()
    assert shown(monitored, "Failed requests") == set()


def test_a_worker_that_hangs_is_named_by_the_alert_and_by_the_panels(monitored: Monitored) -> None:
    worker = monitored.stack.pid("tf")
    os.kill(worker, signal.SIGSTOP)
    try:
        monitored.wait_for(
            lambda: ("TandemRuntimeDown", "firing", "tf") in monitored.alerts(), lambda: monitored.alerts()
        )
        assert {runtime for _, state, runtime in monitored.alerts() if state == "firing"} == {"tf"}
        assert ("TandemRuntimeDown", "critical", "tf") in shown(monitored, "Firing alerts")
        failing = shown(monitored, "Failed requests")
        assert failing
        assert {runtime for _, runtime in failing} == {"tf"}
    finally:
        os.kill(worker, signal.SIGCONT)
    monitored.wait_for(
        lambda: ("TandemRuntimeDown", "firing", "tf") not in monitored.alerts(), lambda: monitored.alerts()
    )
