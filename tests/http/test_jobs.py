"""Adding and verifying over HTTP: who may, what is refused, and what a job says. Real processes, without a worker."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.conftest import StartGateway
from tests.support.jobs import ended


@pytest.fixture
def admin(start_gateway: StartGateway, tmp_path: Path) -> httpx.Client:
    client = start_gateway()
    client.headers["authorization"] = f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"
    return client


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/models"), ("POST", "/v1/models/digits/verify"), ("GET", "/v1/jobs/x")]
)
def test_without_the_admin_key_nothing_is_started(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path, json={"source": "keras:MobileNetV2", "name": "m"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_source_that_is_not_known_fails_with_the_list_of_those_that_are(admin: httpx.Client) -> None:
    job = ended(admin, admin.post("/v1/models", json={"source": "model.caffemodel", "name": "m"}))
    assert job["state"] == "failed"
    assert "model.caffemodel is not a source that Tandem knows: model.keras, keras:Name" in job["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({"name": "m"}, "give one source, or a pair", id="no-source"),
        pytest.param({"name": "m", "torch": "a.pt"}, "a pair needs both", id="half-a-pair"),
        pytest.param({"name": "Not A Name", "source": "x.onnx"}, "name", id="bad-name"),
        pytest.param({"name": "m", "source": "x.onnx", "precision": "int8"}, "precision", id="unknown-precision"),
        pytest.param({"name": "m", "source": "x.onnx", "colour": "red"}, "colour", id="unknown-field"),
        pytest.param({"name": "m", "source": "é" * 128}, "source: no file has so long a name", id="long-name"),
        pytest.param({"name": "m", "source": "x.onnx", "weights": "a/" * 1200}, "weights: no file", id="long-path"),
        pytest.param({"name": "m", "source": "x.onnx", "samples": "x" * 256}, "samples: no file", id="long-folder"),
        pytest.param({"name": "m", "source": "x\0.onnx"}, "source: no file has a zero byte", id="no-name-at-all"),
    ],
)
def test_a_request_that_is_not_valid_is_refused_at_once(admin: httpx.Client, body: dict[str, str], said: str) -> None:
    answer = admin.post("/v1/models", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert said in answer.json()["detail"]


def test_verifying_an_unknown_model_is_404_and_so_is_an_unknown_job(admin: httpx.Client) -> None:
    assert admin.post("/v1/models/nothing/verify").json()["code"] == "model_not_found"
    assert admin.get("/v1/jobs/nothing").json()["code"] == "job_not_found"


def test_a_proof_without_workers_fails_and_names_the_runtime(
    admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TORCH__ADDRESS", "127.0.0.1:9")
    job = ended(admin, admin.post("/v1/models/digits/verify", json={"version": 1}))
    assert job["state"] == "failed"
    assert "torch: TorchServe cannot take requests now" in job["error"]
    assert "Traceback" not in job["error"]
