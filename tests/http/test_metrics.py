"""`/metrics` in both formats, and the exemplars in one of them."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client import parser as plain_text
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Exemplar

from tests.conftest import Fakes, StartGateway
from tests.fakes.collector import Collector
from tests.support.pictures import encode, plain

PREDICT = "/v1/models/digits/predict"
# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def page(client: httpx.Client, accept: str | None) -> httpx.Response:
    answer = client.get("/metrics", headers={} if accept is None else {"accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


def families(parser: ModuleType, text: str) -> Iterable[Metric]:
    found: Iterable[Metric] = parser.text_string_to_metric_families(text)
    return found


def series(several: Iterable[Metric]) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {(sample.name, frozenset(sample.labels.items())) for family in several for sample in family.samples}


def exemplars(client: httpx.Client) -> dict[str, list[Exemplar]]:
    """By the name of their series."""
    found: dict[str, list[Exemplar]] = {}
    for family in families(openmetrics, page(client, PROMETHEUS).text):
        for sample in family.samples:
            if sample.exemplar:
                found.setdefault(sample.name, []).append(sample.exemplar)
    return found


def test_prometheus_gets_openmetrics_with_the_same_series_as_the_plain_page(client: httpx.Client) -> None:
    for path in (PREDICT, "/v1/models/digits/compare"):
        client.post(path, files={"image": encode(plain(1))})
    rich, simple = page(client, PROMETHEUS), page(client, None)
    assert rich.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert simple.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = series(families(openmetrics, rich.text))
    assert names == series(families(plain_text, simple.text))
    assert not [name for name, _ in names if name.endswith("_created")]
    assert "tandem_requests_total" in {name for name, _ in names}


@pytest.mark.parametrize("accept", ["text/html", "*/*", "application/openmetrics-text;version=x", "é"])
def test_others_get_plain_text(client: httpx.Client, accept: str) -> None:
    answer = client.get("/metrics", headers={b"accept": accept.encode()})
    assert answer.headers["content-type"].startswith("text/plain")
    assert series(families(plain_text, answer.text))


@pytest.mark.parametrize("queue_s", [0.002, None], ids=["both", "inference alone"])
def test_each_picture_counts_once_for_each_part_that_its_worker_tells(
    client: httpx.Client, fakes: Fakes, queue_s: float | None
) -> None:
    fakes["torch"].queue_s, fakes["torch"].inference_s = queue_s, 0.25
    client.post(PREDICT, files=[("image", encode(plain(1)))] * 3)
    client.post("/v1/models/digits/compare", files={"image": encode(plain(1))})
    found = {
        (sample.labels["role"], sample.labels["part"], sample.name.removeprefix("tandem_worker_seconds_")): sample.value
        for family in families(plain_text, page(client, None).text)
        for sample in family.samples
        if sample.name in ("tandem_worker_seconds_count", "tandem_worker_seconds_sum")
        if sample.labels["model"] == "digits" and sample.labels["runtime"] == "torch"
    }
    said = {"inference": 0.25} if queue_s is None else {"inference": 0.25, "queue": queue_s}
    pictures = {"primary": 3, "compare": 1}
    counts = {(role, part, "count"): number for role, number in pictures.items() for part in said}
    sums = {(role, part, "sum"): number * said[part] for role, number in pictures.items() for part in said}
    assert found == pytest.approx(counts | sums)


def ask(client: httpx.Client, *, sampled: bool) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-0{int(sampled)}"}
    assert client.post(PREDICT, files={"image": encode(plain(1))}, headers=headers).status_code == 200


def test_histograms_of_a_sampled_request_lead_to_its_trace(collector: Collector, start_gateway: StartGateway) -> None:
    client = start_gateway(tracing={"endpoint": collector.endpoint})
    ask(client, sampled=True)
    found = exemplars(client)
    assert found.keys() == {"tandem_stage_seconds_bucket", "tandem_request_seconds_bucket"}
    assert len(found["tandem_stage_seconds_bucket"]) == 7
    assert {each.labels["trace_id"] for several in found.values() for each in several} == {TRACE_ID}


def test_a_request_that_is_not_sampled_leaves_no_exemplar(collector: Collector, start_gateway: StartGateway) -> None:
    client = start_gateway(tracing={"endpoint": collector.endpoint})
    ask(client, sampled=False)
    assert exemplars(client) == {}


def test_without_tracing_there_are_no_exemplars(client: httpx.Client) -> None:
    ask(client, sampled=True)
    assert exemplars(client) == {}
