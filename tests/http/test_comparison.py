"""`GET /v1/comparison`: which two targets, from when on, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from comparison.process import Process
from evidence.document import Comparison, Target
from gateway.app import create_app
from gateway.errors import StatisticsUnavailable
from gateway.settings import Settings, TfSettings, TorchSettings
from tests.conftest import Fakes
from tests.support.inferences import TF, TORCH, pairs, write_log
from tests.support.packages import write_store
from tests.support.serving import served


@dataclass
class Asked:
    """Takes the place of the statistics' process: what it was asked."""

    questions: list[tuple[str, Target, Target, float]] = field(default_factory=list)

    async def compare(self, model: str, a: Target, b: Target, *, since: float) -> Comparison:
        self.questions.append((model, a, b, since))
        raise StatisticsUnavailable("Not in this test.")


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def client(tmp_path: Path, fakes: Fakes, asked: Asked) -> Iterator[httpx.Client]:
    write_store(tmp_path / "store", 1, 2)
    app = create_app(Settings(var=tmp_path, warm_up_requests=0), fakes, asked)
    with served(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def put_policy(client: httpx.Client, var: Path, policy: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {(var / 'admin.key').read_text().strip()}"}
    client.put("/v1/models/digits/routing", json=policy, headers=headers).raise_for_status()


@pytest.mark.parametrize(
    ("policy", "query", "targets"),
    [
        (None, "", (("torch", 2), ("tf", 2))),
        ({"policy": "shadow", "primary": "tf", "shadow": "torch@1"}, "", (("tf", 2), ("torch", 1))),
        ({"policy": "shadow", "primary": "tf", "shadow": "tf"}, "", (("tf", 2), ("tf", 2))),
        ({"policy": "weighted", "weights": {"tf@1": 1, "tf@2": 2}}, "", (("tf", 1), ("tf", 2))),
        ({"policy": "weighted", "weights": {"torch": 1}}, "", (("torch", 2), ("tf", 2))),
        ({"policy": "shadow", "primary": "tf", "shadow": "torch"}, "&a=torch@1&b=tf", (("torch", 1), ("tf", 2))),
    ],
    ids=["none", "shadow", "itself", "two weights", "one weight", "named"],
)
def test_the_two_targets_are_those_named_or_the_policys(
    client: httpx.Client, asked: Asked, tmp_path: Path, policy: dict[str, Any] | None, query: str, targets: Any
) -> None:
    if policy is not None:
        put_policy(client, tmp_path, policy)
    assert client.get(f"/v1/comparison?model=digits{query}").status_code == 503
    ((model, a, b, _),) = asked.questions
    assert (model, ((a.runtime, a.version), (b.runtime, b.version))) == ("digits", targets)


def test_the_start_stands_still_and_lies_a_window_back_at_least(client: httpx.Client, asked: Asked) -> None:
    for _ in range(3):
        client.get("/v1/comparison?model=digits&window=7d")
    starts = {since for *_, since in asked.questions}
    (start,) = starts
    week = 7 * 86400
    assert start % week == 0
    assert week <= datetime.now(UTC).timestamp() - start < 2 * week


@pytest.mark.parametrize(
    ("since", "time"),
    [
        ("2024-03-31T08:00:00Z", 1711872000),
        ("2024-03-31T10:00:00+02:00", 1711872000),
        ("2024-03-31T08:00:00", 1711872000),
    ],
)
def test_a_start_can_be_named(client: httpx.Client, asked: Asked, since: str, time: float) -> None:
    client.get(f"/v1/comparison?model=digits&since={since}")
    assert asked.questions[0][3] == time


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("model=digits&window=soon", 422, "Write a number and a unit: 90s, 15m, 1h or 7d."),
        ("model=digits&window=0h", 422, "is no length of time"),
        ("model=digits&window=9999d", 422, "up to 366 days"),
        ("model=digits&since=yesterday", 422, "Write it as ISO 8601"),
        ("model=digits&since=2999-01-01T00:00:00Z", 422, "is in the future"),
        ("model=digits&a=torch", 422, "Name both targets"),
        ("model=digits&a=torch&b=onnx", 422, "Targets are torch and tf"),
        ("model=digits&a=torch&b=tf@9", 404, "It has: 1, 2."),
        ("model=nothing", 404, "There is no model"),
        ("model=digits&hours=1", 422, "no such parameter"),
        ("", 422, "model"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_to_do(
    client: httpx.Client, asked: Asked, query: str, status: int, says: str
) -> None:
    answer = client.get(f"/v1/comparison?{query}")
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert asked.questions == []


def test_statistics_that_are_away_are_a_503_that_says_when_to_come_back(client: httpx.Client) -> None:
    answer = client.get("/v1/comparison?model=digits")
    assert (answer.status_code, answer.json()["code"]) == (503, "statistics_unavailable")
    assert answer.headers["retry-after"] == "5"


def test_the_answer_is_the_document(tmp_path: Path, fakes: Fakes) -> None:
    """The whole way: a log, the statistics' process, HTTP."""
    write_store(tmp_path / "store", 1)
    a, b = Process(0.0, slowdown=1.2).draw(1000, np.random.default_rng(3))
    start = datetime.now(UTC).timestamp() - 3000
    write_log(tmp_path / "tandem.db", pairs(a, b, a=TORCH, b=TF, start=start, every_s=1.0))
    settings = Settings(
        var=tmp_path,
        warm_up_requests=0,
        torch=TorchSettings(device="cpu"),
        tf=TfSettings(device="cpu"),
    )
    with served(create_app(settings, fakes)) as url:
        answer = httpx.get(f"{url}/v1/comparison?model=digits&window=1h", timeout=60)
    assert answer.status_code == 200
    found = Comparison.model_validate(answer.json())
    assert (found.faster, found.paired.n, found.window_s, found.objections) == ("tf", 1000, 3600, ())
    assert found.environment["devices"] == {"torch": "cpu", "tf": "cpu"}
    assert found.environment["precision"] == {"torch": "fp32", "tf": "fp32"}
    assert found.environment["gateway"]["cpus"] > 0


def test_a_device_that_differs_forbids_the_verdict(tmp_path: Path, fakes: Fakes) -> None:
    write_store(tmp_path / "store", 1)
    write_log(tmp_path / "tandem.db", [])
    settings = Settings(
        var=tmp_path,
        warm_up_requests=0,
        torch=TorchSettings(device="cpu"),
        tf=TfSettings(device="gpu"),
    )
    with served(create_app(settings, fakes)) as url:
        answer = httpx.get(f"{url}/v1/comparison?model=digits", timeout=60)
    assert answer.json()["objections"] == ["device differs"]


def test_the_description_of_the_api_has_the_document(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    answer = described["paths"]["/v1/comparison"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/Comparison"}
    assert "claimed by the bound" in str(described["components"]["schemas"]["Comparison"])
