"""One locust that leads, and others that have the users."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.loadtests.conftest import Seen
from tests.support.locust import ROOT, headless, started, web
from tests.support.stack import HOST, free_ports


def connected(port: str) -> bool:
    """What the health check of the load workers' container says, of a master on another port."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    _, _, *arguments = compose["services"]["locust_worker"]["healthcheck"]["test"]
    command = [sys.executable, *(argument.replace("5557", port) for argument in arguments)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_the_master_has_the_figures_of_its_workers_and_they_its_options(canned: Seen) -> None:
    (port,) = map(str, free_ports(1))
    master = (
        "--master",
        "--master-bind-host",
        HOST,
        "--master-bind-port",
        port,
        "--expect-workers",
        "2",
        "--autostart",
    )
    worker = ("--worker", "--master-host", HOST, "--master-port", port)
    users = 6
    assert not connected(port)
    with (
        web(*master, "--host", canned.url, "--model", "shapes", "-u", str(users), "-r", "6", "-t", "4s") as locust,
        started(*worker),
        started(*worker),
    ):
        locust.await_users(users)
        assert connected(port)
        shares = locust.metrics()["tandem_load_users"]
        locust.await_users(0)

        def counted() -> float:
            return sum(locust.metrics().get("tandem_load_requests_total", {}).values())

        # The workers' last reports come after the end; what was under way then is in none.
        locust.until(lambda: counted() >= canned.paths.total() - users)
        metrics = locust.metrics()
        locust.until(lambda: locust.report()["stats"][-1]["num_requests"] == counted())
        table = {row["name"]: row for row in locust.report()["stats"][:-1]}

    assert shares == {("AutoUser",): 1, ("CompareUser",): 1, ("TfUser",): 2, ("TorchUser",): 2}
    assert 0 < sum(metrics["tandem_load_requests_total"].values()) <= canned.paths.total()
    assert metrics["tandem_load_requests_total"] == {(name,): row["num_requests"] for name, row in table.items()}
    assert metrics["tandem_load_failures_total"] == {(name,): row["num_failures"] for name, row in table.items()}
    assert metrics["tandem_load_response_seconds_count"] == metrics["tandem_load_requests_total"]
    assert {path.split("/")[3] for path in canned.paths} == {"shapes"}
    assert {kind for kind, _ in canned.uploads} == {"image/jpeg"}


def test_one_command_starts_processes_that_share_the_users(gateway_url: str, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    (port,) = map(str, free_ports(1))
    processes = ("--processes", "2", "--master-bind-host", HOST, "--master-bind-port", port, "--master-port", port)
    shape = ("--shape", "step", "--step-users", "2", "--step-time", "2s")
    run = headless("--host", gateway_url, *processes, *shape, "-u", "4", "-r", "4", "--summary-json", str(summary))
    assert run.returncode == 0, run.stderr
    assert "to 2 ready workers" in run.stderr
    assert "Shape test updating to 2 users" in run.stderr
    assert "Shape test updating to 4 users" in run.stderr
    assert run.stderr.count("\nBy runtime\n") == 1
    assert json.loads(summary.read_text())["runtimes"].keys() == {"torch", "tf"}


def test_a_worker_without_the_pictures_fails_the_run(canned: Seen, pictures: Path, tmp_path: Path) -> None:
    (port,) = map(str, free_ports(1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with started("--worker", "--master-host", HOST, "--master-port", port, folder=elsewhere) as worker:
        run = headless(
            "--master", "--master-bind-host", HOST, "--master-bind-port", port,
            "--host", canned.url, "--images", pictures.name, "-t", "20s",
            folder=pictures.parent,
        )  # fmt: skip
        assert worker.wait(30) == 1
    assert run.returncode == 1, run.stderr
    assert "no picture in pictures nor in pictures/digits/samples" in run.stderr
    assert not canned.paths
