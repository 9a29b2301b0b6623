"""The end of a run says how the runtimes compare."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.loadtests.conftest import Seen
from tests.support.locust import headless


def test_the_summary_adds_up_what_each_runtime_answered(gateway_url: str, tmp_path: Path) -> None:
    summary, report = tmp_path / "new" / "summary.json", tmp_path / "report"
    files = ("--summary-json", str(summary), "--json-file", str(report))
    run = headless("--host", gateway_url, *files, "-u", "10", "-r", "10", "-t", "2s")
    assert run.returncode == 0, run.stderr

    counted = {row["name"]: row["num_requests"] for row in json.loads(report.with_suffix(".json").read_text())}
    found = json.loads(summary.read_text())
    torch, tf = found["runtimes"]["torch"], found["runtimes"]["tf"]
    assert torch["requests"] == counted["torch predict"] + counted["auto predict (torch)"]
    assert tf["requests"] == counted["tf predict"]
    assert torch["failures"] == tf["failures"] == 0
    for each in (torch, tf):
        assert 0 < each["p50_ms"] <= each["p95_ms"] <= each["p99_ms"]
    for name, ratio in found["torch_to_tf"].items():
        assert ratio == pytest.approx(torch[name] / tf[name], abs=0.001)

    lines = run.stderr.partition("By runtime")[2].splitlines()
    printed = [line.split() for line in lines if re.match(r"(torch|tf)\b", line)]
    assert [line[0] for line in printed] == ["torch", "tf", "torch"]
    assert printed[0][1:3] == [str(torch["requests"]), "0"]
    assert printed[2][:3] == ["torch", "/", "tf"]
    assert float(printed[2][3]) == pytest.approx(found["torch_to_tf"]["requests_per_s"], abs=0.01)


def test_one_runtime_alone_has_no_ratio(canned: Seen, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    run = headless("--host", canned.url, "--summary-json", str(summary), "-t", "1s", "TfUser")
    assert run.returncode == 1, run.stderr
    found = json.loads(summary.read_text())
    assert found["torch_to_tf"] == {}
    assert found["runtimes"].keys() == {"tf"}
    assert found["runtimes"]["tf"]["failures"] == found["runtimes"]["tf"]["requests"] > 0
