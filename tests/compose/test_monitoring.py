"""Prometheus and the dashboards on the running stack under locust's load, and what a second torch worker changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from tests.compose.conftest import Running
from tests.support import dashboards
from tests.support.waiting import wait_until

CHOSEN = {"model": "digits"}
WITHOUT_GPU = [query for query in dashboards.queries() if not query.gpu]
REQUESTS_OF_EACH = 'sum by (instance) (ts_inference_requests_total{job="torch", model_name="digits"})'


@pytest.fixture(scope="module")
def loaded(running: Running) -> Iterator[Running]:
    """With users of every class, from locust's containers."""
    load = {"LOCUST_AUTOSTART": "true", "LOCUST_USERS": "10", "LOCUST_SPAWN_RATE": "10"}
    compose = replace(running.compose, environment={**running.compose.environment, **load})
    compose.run("--profile", "load", "up", "--detach", "locust", "locust_worker")
    for service in ("locust", "locust_worker"):
        compose.await_healthy(service)
    yield running
    compose.run("--profile", "load", "rm", "--stop", "--force", "locust", "locust_worker")


def ask(running: Running, expression: str) -> dict[str, float]:
    """The value of each series by its label `instance` or `job`."""
    answer = httpx.get(f"{running.prometheus}/api/v1/query", params={"query": expression}, timeout=30).json()
    return {
        str(each["metric"].get("instance") or each["metric"].get("job")): float(each["value"][1])
        for each in answer["data"]["result"]
    }


def test_every_job_is_scraped_and_the_rules_are_loaded(loaded: Running) -> None:
    up = "min by (job) (up)"
    wanted = dict.fromkeys(("gateway", "torch", "tf", "locust", "prometheus"), 1.0)
    wait_until(lambda: ask(loaded, up) == wanted, lambda: ask(loaded, up))
    groups = httpx.get(f"{loaded.prometheus}/api/v1/rules", timeout=30).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def test_every_query_of_every_dashboard_returns_data(loaded: Running) -> None:
    def empty() -> list[str]:
        return dashboards.faults(loaded.prometheus, WITHOUT_GPU, CHOSEN)

    wait_until(lambda: not empty(), lambda: "\n".join(empty()))


def test_two_torch_workers_both_take_load_and_no_request_fails_while_the_second_comes(loaded: Running) -> None:
    compose = loaded.compose
    failures = "sum(tandem_load_failures_total)"
    before = ask_one(loaded, failures)
    compose.run("up", "--detach", "--no-recreate", "--scale", "torch_worker=2", "torch_worker")
    compose.await_healthy("torch_worker", 2)
    replicas = 'tandem_replicas{runtime="torch"}'
    wait_until(lambda: ask_one(loaded, replicas) == 2, lambda: compose.logs("gateway"))
    wait_until(lambda: len(ask(loaded, REQUESTS_OF_EACH)) == 2, lambda: ask(loaded, REQUESTS_OF_EACH))

    start = ask(loaded, REQUESTS_OF_EACH)

    def shares() -> list[float]:
        """What each worker has taken since then, the smaller one first."""
        done = [count - start[worker] for worker, count in ask(loaded, REQUESTS_OF_EACH).items()]
        return sorted(each / max(1, sum(done)) for each in done)

    # Not at once: Prometheus asks one worker after the other.
    wait_until(lambda: shares()[0] > 0.4, shares)
    assert ask_one(loaded, failures) == before
    compose.run("up", "--detach", "--no-recreate", "--scale", "torch_worker=1", "torch_worker")
    wait_until(lambda: len(compose.containers("torch_worker")) == 1, lambda: compose.containers("torch_worker"))


def ask_one(running: Running, expression: str) -> float:
    (value,) = ask(running, expression).values()
    return value


def test_a_healthy_stack_under_load_fires_no_alert(loaded: Running) -> None:
    alerts = httpx.get(f"{loaded.prometheus}/api/v1/alerts", timeout=30).json()["data"]["alerts"]
    assert [each["labels"]["alertname"] for each in alerts if each["state"] == "firing"] == []


def test_grafana_has_the_dashboards_and_its_data_source_answers(loaded: Running) -> None:
    if not loaded.official:
        pytest.skip("Grafana's image is only pulled by make test-compose-official")
    grafana = loaded.compose.url("grafana")
    found = httpx.get(f"{grafana}/api/search", params={"type": "dash-db"}, timeout=30).json()
    assert {each["uid"] for each in found} == {dashboards.board(path)["uid"] for path in dashboards.DASHBOARDS}
    health = httpx.get(f"{grafana}/api/datasources/uid/prometheus/health", timeout=30).json()
    assert health["status"] == "OK"
