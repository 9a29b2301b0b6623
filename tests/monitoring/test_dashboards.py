"""On a healthy stack under load every panel shows something and no alert fires; on a sick one they say which runtime it is."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

from tests.monitoring.conftest import Monitored
from tests.support import dashboards
from tests.support.dashboards import Query

QUERIES = dashboards.queries()
WITHOUT_GPU = [query for query in QUERIES if not query.gpu]
CHOICES: list[dict[str, str]] = [{"model": "digits"}] + [{"model": "digits", "runtime": name} for name in ("torch", "tf")]
HEALTHY: set[tuple[str, str, str]] = set()


def shows_something(monitored: Monitored, query: Query, values: dict[str, str]) -> str | None:
    """Why the panel of `query` would be empty; None where it is not."""
    fault = dashboards.fault(dashboards.run(monitored.url, query, values))
    return fault and f"{query.where}: {fault} from {dashboards.interpolated(query, values)}"


def test_only_the_queries_of_gpus_are_left_out() -> None:
    left_out = {query.where for query in QUERIES if query.gpu}
    assert left_out
    assert {where.partition(": ")[0] for where in left_out} == {"workers"}
    assert all(where.partition(": ")[2].startswith("GPU") for where in left_out), left_out


def test_every_query_returns_data_while_the_stack_is_under_load(monitored: Monitored) -> None:
    """With all runtimes chosen; and with one, whatever does not belong to the other."""
    assert len(WITHOUT_GPU) > 50

    def faults() -> list[str]:
        asked = ((query, CHOICES[0]) for query in WITHOUT_GPU)
        return [fault for query, values in asked if (fault := shows_something(monitored, query, values))]

    monitored.wait_for(lambda: not faults(), lambda: "\n".join(faults()))
