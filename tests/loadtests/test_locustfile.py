"""locust runs the locustfile without its web interface, in a process of its own: it patches the standard library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.loadtests.conftest import Seen
from tests.support.locust import ROOT, headless, web

ROWS = {"torch predict", "tf predict", "compare"}
SAMPLES = ROOT / "models" / "digits" / "samples"
CHOSEN = "auto predict (torch)"
"""The row of the model's policy, which is the default runtime."""


class Stack(Protocol):
    url: str


def rows(report: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(report.with_suffix(".json").read_text())}


def test_both_runtimes_of_a_real_stack_get_figures_of_their_own(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "report"
    run = headless("--host", stack.url, "--json-file", str(report), "-u", "10", "-r", "10", "-t", "5s")
    assert run.returncode == 0, run.stderr
    found = rows(report)
    assert set(found) == {*ROWS, CHOSEN}
    for row in found.values():
        assert row["num_requests"] > 0
        assert row["num_failures"] == 0


@pytest.mark.parametrize(
    ("user", "row"),
    [("TorchUser", "torch predict"), ("TfUser", "tf predict"), ("CompareUser", "compare"), ("AutoUser", CHOSEN)],
)
def test_each_kind_of_user_has_a_row_of_its_own(user: str, row: str, gateway_url: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    run = headless("--host", gateway_url, "--json-file", str(report), "-u", "2", "-r", "2", "-t", "1s", user)
    assert run.returncode == 0, run.stderr
    (found,) = rows(report).values()
    assert (found["name"], found["num_failures"]) == (row, 0)
    assert found["num_requests"] > 0


def test_what_is_wrong_with_an_answer_is_in_the_table_of_failures(canned: Seen, pictures: Path) -> None:
    run = headless("--host", canned.url, "--images", str(pictures), "-u", "10", "-r", "10", "-t", "2s")
    assert run.returncode == 1, run.stderr
    failures = run.stderr.partition("Error report")[2]
    assert "POST torch predict: 503 runtime_unavailable" in failures
    assert "POST tf predict: no prediction" in failures
    assert "POST compare: torch: runtime_unavailable" in failures
    assert "auto predict" not in failures


def test_an_answer_of_another_runtime_than_the_one_asked_is_a_failure(canned: Seen, pictures: Path) -> None:
    run = headless("--host", canned.url, "--images", str(pictures), "--model", "crossed", "-t", "1s", "TorchUser")
    assert run.returncode == 1, run.stderr
    assert "POST torch predict: asked torch, answered by tf" in run.stderr


def test_a_refused_request_is_a_failure_and_is_not_sent_again(canned: Seen, tmp_path: Path) -> None:
    report = tmp_path / "report"
    users = ("-u", "3", "-r", "3", "-t", "1s", "AutoUser")
    run = headless(
        "--host", canned.url, "--model", "busy", "--images", str(SAMPLES), "--json-file", str(report), *users
    )
    assert run.returncode == 1, run.stderr
    (found,) = rows(report).values()
    assert found["name"] == "auto predict"
    assert found["num_failures"] == found["num_requests"] > 0
    cut_off_at_the_end = 3
    assert found["num_requests"] <= canned.paths.total() <= found["num_requests"] + cut_off_at_the_end


def test_the_key_in_the_environment_is_sent_with_every_picture(
    canned: Seen, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_API_KEY", "tandem_1_s3cret")
    run = headless("--host", canned.url, "--model", "crossed", "--images", str(pictures), "-t", "1s", "AutoUser")
    assert run.returncode == 0, run.stderr
    assert set(canned.authorizations) == {"Bearer tandem_1_s3cret"}
    assert "s3cret" not in run.stdout + run.stderr


def test_a_user_keeps_its_connection(canned: Seen) -> None:
    run = headless(
        "--host", canned.url, "--model", "crossed", "--images", str(SAMPLES), "-u", "3", "-r", "3", "-t", "1s"
    )
    assert canned.paths.total() > 30, run.stderr
    assert canned.connections == 3


def test_the_pictures_of_the_bundled_model_that_is_asked_are_sent_from_any_folder(canned: Seen, tmp_path: Path) -> None:
    run = headless("--host", canned.url, "--model", "shapes", "-t", "1s", "AutoUser", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    samples = {each.read_bytes() for each in (ROOT / "models" / "shapes" / "samples").glob("*.jpg")}
    assert set(canned.paths) == {"/v1/models/shapes/predict"}
    assert canned.uploads == {("image/jpeg", each) for each in samples}


def test_the_pictures_of_a_folder_are_sent_with_their_media_types(canned: Seen, pictures: Path) -> None:
    run = headless("--host", canned.url, "--images", str(pictures), "--model", "a/b", "-t", "1s", "AutoUser")
    assert run.returncode == 0, run.stderr
    assert set(canned.paths) == {"/v1/models/a%2Fb/predict"}
    assert canned.uploads == {("image/png", b"one"), ("image/jpeg", b"two")}


def test_a_folder_without_pictures_is_one_clear_line(tmp_path: Path) -> None:
    run = headless("--host", "http://127.0.0.1:9", "--images", str(tmp_path), "-t", "1s")
    assert run.returncode == 1
    assert f"no picture in {tmp_path} nor in {tmp_path / 'digits' / 'samples'}: with --images" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_model_without_pictures_of_its_own_needs_a_folder(tmp_path: Path) -> None:
    run = headless("--host", "http://127.0.0.1:9", "--model", "flowers", "-t", "1s")
    assert run.returncode == 1
    assert f"nor in {ROOT / 'models' / 'flowers' / 'samples'}: with --images" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_web_interface_can_ask_another_model_and_says_that_it_has_no_pictures(canned: Seen) -> None:
    form = {"user_count": "1", "spawn_rate": "1", "host": canned.url}
    with web("AutoUser") as locust:
        locust.await_state("ready")
        locust.client.post("/swarm", data=form | {"model": "flowers"})
        locust.until(lambda: "no picture in " in str(locust.client.get("/logs").json()["master"]))
        assert not canned.paths
        locust.client.post("/swarm", data=form | {"model": "shapes"})
        locust.until(lambda: set(canned.paths) == {"/v1/models/shapes/predict"})
