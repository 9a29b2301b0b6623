"""`PUT /v1/models/{model}/scale`, over the fake runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import Conflict
from gateway.runtimes.base import ModelRef
from tests.conftest import Fakes

SCALE = "/v1/models/digits/scale"


@pytest.fixture
def admin(client: httpx.Client, tmp_path: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}


@pytest.mark.parametrize(("named", "scaled"), [({}, 2), ({"version": 1}, 1)], ids=["the default", "a version"])
def test_a_version_is_scaled_at_one_runtime(
    client: httpx.Client, fakes: Fakes, admin: dict[str, str], named: dict[str, int], scaled: int
) -> None:
    answer = client.put(SCALE, json={"runtime": "torch", "replicas": 3} | named, headers=admin)
    assert answer.status_code == 200
    assert answer.json()["version"] == str(scaled)
    assert "TANDEM_WORKERS__REPLICAS" in answer.json()["holds"]
    assert (fakes["torch"].scales, fakes["tf"].scales) == ([(ModelRef("digits", scaled), 3)], [])


def test_scaling_needs_the_admin_key(client: httpx.Client, fakes: Fakes) -> None:
    answer = client.put(SCALE, json={"runtime": "torch", "replicas": 3})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert fakes["torch"].scales == []


def test_a_runtime_that_cannot_says_so(client: httpx.Client, fakes: Fakes, admin: dict[str, str]) -> None:
    fakes["tf"].scale_error = Conflict("It is set at the start.")
    answer = client.put(SCALE, json={"runtime": "tf", "replicas": 3}, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert answer.json()["detail"] == "It is set at the start."


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"runtime": "torch", "replicas": 0}, id="none"),
        pytest.param({"runtime": "torch", "replicas": 65}, id="too many"),
        pytest.param({"runtime": "onnx", "replicas": 1}, id="no such runtime"),
        pytest.param({"runtime": "torch"}, id="no number"),
    ],
)
def test_what_is_out_of_range_is_refused(
    client: httpx.Client, fakes: Fakes, admin: dict[str, str], body: dict[str, Any]
) -> None:
    answer = client.put(SCALE, json=body, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert fakes["torch"].scales == []


def test_an_unknown_model_or_version_is_not_found(client: httpx.Client, admin: dict[str, str]) -> None:
    for path, version in ((SCALE, 9), ("/v1/models/nothing/scale", None)):
        answer = client.put(path, json={"runtime": "torch", "replicas": 1, "version": version}, headers=admin)
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
