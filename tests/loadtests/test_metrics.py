"""The page that Prometheus scrapes says what locust's own table says."""

from __future__ import annotations

import re

import pytest

from tests.support.locust import ROOT, web

PAGE = (ROOT / "docs" / "load-tests.md").read_text()


def test_the_page_has_the_figures_of_locusts_table(gateway_url: str) -> None:
    run = ("--autostart", "-u", "10", "-r", "10", "-t", "2s")
    with web("--host", gateway_url, *run) as locust:
        locust.await_state("stopped")
        report, metrics = locust.report(), locust.metrics()

    rows = {row["name"]: row for row in report["stats"] if row["name"] != "Aggregated"}
    assert rows
    assert metrics["tandem_load_requests_total"] == {(name,): row["num_requests"] for name, row in rows.items()}
    assert metrics["tandem_load_failures_total"] == {(name,): row["num_failures"] for name, row in rows.items()}
    assert metrics["tandem_load_response_seconds_count"] == metrics["tandem_load_requests_total"]
    for name, row in rows.items():
        mean_s = metrics["tandem_load_response_seconds_sum"][name,] / row["num_requests"]
        assert mean_s == pytest.approx(row["avg_response_time"] / 1000)
        buckets = metrics["tandem_load_response_seconds_bucket"].items()
        within = [count for (_, row_name), count in buckets if row_name == name]
        assert within == sorted(within)
        assert within[-1] == row["num_requests"]
    described = re.findall(r"^\| `(tandem_\w+)` \|", PAGE, re.MULTILINE)
    assert set(described) == {re.sub("_(bucket|count|sum)$", "", name) for name in metrics}
    assert metrics["tandem_load_users"] == {(each,): 0 for each in ("AutoUser", "CompareUser", "TfUser", "TorchUser")}
