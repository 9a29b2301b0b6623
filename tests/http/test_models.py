"""The routes about models, over the fake runtimes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.runtimes.base import ModelRef, ModelStatus
from tests.conftest import Fakes, StartGateway

MODEL = "/v1/models/digits"
VERSIONS = [f"{MODEL}/versions/1", f"{MODEL}/versions/2"]


def admin(client: httpx.Client, tmp_path: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}


def until_settled_on(client: httpx.Client, version: str) -> dict[str, Any]:
    """The model, once its default is `version` and ready on both runtimes."""
    end_s = time.monotonic() + 30
    while True:
        answer: dict[str, Any] = client.get(MODEL).json()
        ready = all(
            {"state": "ready", "reason": None, "version": version} in each for each in answer["runtimes"].values()
        )
        if answer["default_version"] == version and ready:
            return answer
        assert time.monotonic() < end_s, answer


def test_a_model_shows_what_the_packages_of_its_versions_say(client: httpx.Client, tmp_path: Path) -> None:
    answer = client.get(MODEL).json()
    assert [each["version"] for each in answer["versions"]] == ["1", "2"]
    version = answer["versions"][0]
    assert version["input"]["fit"] == "stretch"
    artifact: dict[str, Any] = {"form": "none", "sha256": "0" * 64, "candidates_ms": {}, "compiled_by": None}
    assert version["artifacts"]["torch"] == artifact
    assert version["precision"] == "fp32"
    assert version["parity"]["fp32"]["agreeing"] == 10
    assert (version["licence"], version["normalisation"], version["source"]) == ("Apache-2.0", "none", "tests")
    assert (version["proves"], version["mismatch_allowed"]) == (True, False)
    assert str(tmp_path) not in str(answer)


def test_the_list_shows_the_proof_of_each_version_in_short(client: httpx.Client) -> None:
    model = next(each for each in client.get("/v1/models").json()["models"] if each["name"] == "digits")
    proof = {"pictures": 10, "agreeing": 10, "precision": "fp32", "passed": True, "proves": True}
    proof |= {"mismatch_allowed": False}
    assert model["proofs"] == {"1": proof, "2": proof}
    assert "versions" not in model


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", f"{MODEL}/default"), ("DELETE", MODEL), ("DELETE", VERSIONS[0])], ids=str
)
def test_changes_need_the_admin_key(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path, json={"version": 1})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert len(client.get(MODEL).json()["versions"]) == 2


def test_the_default_moves_to_the_version_that_is_named(client: httpx.Client, tmp_path: Path) -> None:
    until_settled_on(client, "2")
    answer = client.put(f"{MODEL}/default", json={"version": 1}, headers=admin(client, tmp_path))
    assert answer.status_code == 200
    assert until_settled_on(client, "1")["wanted_version"] is None


def test_a_default_that_is_not_ready_is_shown_as_wanted(
    start_gateway: StartGateway, fakes: Fakes, tmp_path: Path
) -> None:
    fakes["tf"].statuses[ModelRef("digits", 1)] = ModelStatus("failed", "It is not a model.")
    client = start_gateway()
    until_settled_on(client, "2")
    client.put(f"{MODEL}/default", json={"version": 1}, headers=admin(client, tmp_path))
    end_s = time.monotonic() + 30
    while client.get("/readyz").json()["wanted"].get("digits", {}).get("tf", {}).get("state") != "failed":
        assert time.monotonic() < end_s
    model = client.get(MODEL).json()
    assert (model["default_version"], model["wanted_version"]) == ("2", "1")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{MODEL}/versions/9", 404, "model_not_found"),
        ("/v1/models/cats", 404, "model_not_found"),
        ("/v1/models/cats/versions/1", 404, "model_not_found"),
        (f"{MODEL}/versions/2", 409, "conflict"),
        (f"{MODEL}/versions/0", 422, "invalid_parameter"),
    ],
    ids=str,
)
def test_what_cannot_be_removed_is_refused(
    client: httpx.Client, tmp_path: Path, path: str, status: int, code: str
) -> None:
    answer = client.delete(path, headers=admin(client, tmp_path))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"version": 9}, 404, "model_not_found"),
        ({"version": "x"}, 422, "invalid_parameter"),
        ({}, 422, "invalid_parameter"),
    ],
    ids=str,
)
def test_a_default_that_makes_no_sense_is_refused(
    client: httpx.Client, tmp_path: Path, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.put(f"{MODEL}/default", json=body, headers=admin(client, tmp_path))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_version_that_still_answers_by_default_is_not_removed(
    start_gateway: StartGateway, fakes: Fakes, tmp_path: Path
) -> None:
    fakes["tf"].statuses[ModelRef("digits", 1)] = ModelStatus("failed", "It is not a model.")
    client = start_gateway()
    until_settled_on(client, "2")
    client.put(f"{MODEL}/default", json={"version": 1}, headers=admin(client, tmp_path))
    answer = client.delete(f"{MODEL}/versions/2", headers=admin(client, tmp_path))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_removed_version_is_not_found_from_then_on(client: httpx.Client, tmp_path: Path) -> None:
    answer = client.delete(VERSIONS[0], headers=admin(client, tmp_path))
    assert answer.json() == {"model": "digits", "removed": ["1"]}
    assert client.post(f"{MODEL}/predict?version=1").status_code == 404
    assert [each["version"] for each in client.get(MODEL).json()["versions"]] == ["2"]


def test_a_removed_model_is_gone_with_all_its_versions(client: httpx.Client, tmp_path: Path) -> None:
    answer = client.delete(MODEL, headers=admin(client, tmp_path))
    assert answer.json() == {"model": "digits", "removed": ["1", "2"]}
    assert "digits" not in {each["name"] for each in client.get("/v1/models").json()["models"]}
    assert client.get(MODEL).status_code == 404
