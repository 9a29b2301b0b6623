"""What locust knows of a run, for Prometheus: `/metrics` on the port of its web interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flask import Response
from locust.env import Environment
from locust.runners import MasterRunner
from locust.stats import StatsEntry
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10_000, 30_000)


class LoadCollector(Collector):
    """Reads locust's own table at every scrape.

    On the master of a distributed run that is what the workers have reported so far, which they do every 3 s. locust
    empties the table when a run starts, so the counters begin at zero with each.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def collect(self) -> Iterator[Metric]:
        yield self._users()
        rows: dict[str, list[StatsEntry]] = {}
        for entry in list(self._environment.stats.entries.values()):
            rows.setdefault(entry.name, []).append(entry)
        requests = CounterMetricFamily(
            "tandem_load_requests",
            "Requests that ended, failed ones among them, by row of locust's table.",
            labels=["name"],
        )
        failures = CounterMetricFamily(
            "tandem_load_failures", "Requests that locust counts as failed, by row of its table.", labels=["name"]
        )
        seconds = HistogramMetricFamily(
            "tandem_load_response_seconds",
            "Time from a request's start to the end of its answer, failed ones among them, by row of locust's table. "
            "locust rounds each time before it counts it: to 1 ms below 100 ms, to two digits above.",
            labels=["name"],
        )
        for name, entries in sorted(rows.items()):
            requests.add_metric([name], sum(entry.num_requests for entry in entries))
            failures.add_metric([name], sum(entry.num_failures for entry in entries))
            _add_times(seconds, name, entries)
        yield from (requests, failures, seconds)

    def _users(self) -> Metric:
        runner = self._environment.runner
        users = Counter({each.__name__: 0 for each in self._environment.user_classes})
        if isinstance(runner, MasterRunner):
            users.update(runner.reported_user_classes_count)
        elif runner is not None:
            users.update(runner.user_classes_count)
        family = GaugeMetricFamily(
            "tandem_load_users",
            "Simulated users now, by class; on a master, as its workers reported.",
            labels=["user_class"],
        )
        for name, count in sorted(users.items()):
            family.add_metric([name], count)
        return family


def _add_times(family: HistogramMetricFamily, name: str, entries: list[StatsEntry]) -> None:
    times: Counter[int] = Counter()
    for entry in entries:
        times.update(entry.response_times)
    buckets = [
        (str(limit / 1000), float(sum(count for ms, count in times.items() if ms <= limit))) for limit in _BUCKETS_MS
    ]
    family.add_metric(
        [name],
        [*buckets, ("+Inf", float(times.total()))],
        sum_value=sum(entry.total_response_time for entry in entries) / 1000,
    )


def serve_metrics(environment: Environment) -> None:
    """Add `/metrics` to the web interface, behind its login if it has one; nothing where there is no web interface."""
    web_ui = environment.web_ui
    if web_ui is None or web_ui.app is None:
        return
    registry = CollectorRegistry()
    registry.register(LoadCollector(environment))

    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    base_path = environment.parsed_options.web_base_path if environment.parsed_options else ""
    web_ui.app.add_url_rule(f"{base_path}/metrics", "tandem_metrics", metrics)
