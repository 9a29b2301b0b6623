"""The admin API does what the command line does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.sources.conftest import Workplace
from tests.support.jobs import ended


def done(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The job of a 202, which must not fail."""
    job = ended(client, answer)
    assert job["error"] is None, job
    return job


@pytest.fixture
def admin(workplace: Workplace) -> Iterator[httpx.Client]:
    key = (workplace.stack.var / "admin.key").read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=workplace.stack.url, timeout=60, headers=headers) as client:
        yield client


def test_a_model_is_added_verified_and_removed_over_http(workplace: Workplace, admin: httpx.Client) -> None:
    body = {
        "name": "over-http",
        "torch": str(workplace.folder / "pair.torchscript"),
        "tf": str(workplace.folder / "pair-saved-model"),
        "samples": str(workplace.folder / "scans"),
        "labels": "numbers",
        "activation": "none",
    }
    job = done(admin, admin.post("/v1/models", json=body))
    assert job["result"]["parity"]["fp32"]["passed"]
    workplace.stack.wait_until_ready("over-http")
    picture = next((workplace.folder / "scans").iterdir()).read_bytes()
    answer = admin.post("/v1/models/over-http/compare", files={"image": picture}).json()
    assert answer["agreement"]["agree"] is True

    second = done(admin, admin.post("/v1/models", json=body))
    assert second["result"]["version"] == 2
    record = done(admin, admin.post("/v1/models/over-http/verify", json={"version": 1}))["result"]
    assert (record["passed"], record["agreeing"]) == (True, record["pictures"])

    assert admin.delete("/v1/models/over-http").status_code == 200
    assert admin.get("/v1/models/over-http").status_code == 404


def test_the_command_line_adds_through_another_gateway(workplace: Workplace, admin: httpx.Client) -> None:
    key = admin.headers["authorization"].removeprefix("Bearer ")
    environment = workplace.stack.environment | {"TANDEM_API_KEY": key}
    there = Workplace(workplace.folder, type(workplace.stack)(workplace.stack.url, environment, workplace.stack.output))
    folder = workplace.folder
    added = there.run(
        f"tandem models add --url {workplace.stack.url} --torch {folder}/pair.torchscript --tf"
        f" {folder}/pair-saved-model"
        f" --name through --labels numbers --activation none --samples {folder}/scans"
    )
    assert added.returncode == 0, added.stderr
    assert "through version 1 is added." in added.stdout
    verified = there.run(f"tandem models verify through --url {workplace.stack.url}")
    assert verified.returncode == 0, verified.stderr
    assert "pictures with the same predictions" in verified.stdout
