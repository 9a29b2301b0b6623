"""The workers' own metrics pages, after requests through the gateway."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import HOST, ROOT, Stack

PICTURE = (ROOT / "models" / "digits" / "samples" / "7.png").read_bytes()
QUEUE = ":tensorflow:serving:batching_session:"
# Series by the labels that tell the model, without the host's: each counts a picture once.
COUNTS = {
    "torch": [
        ("ts_inference_requests_total", ("model_name", "digits"), ("model_version", "1")),
        ("handler_batch_size_sum", ("model_name", "digits"), ("model_version", "1")),
        ("QueueTime_count", ("Level", "Host")),
    ],
    "tf": [
        (":tensorflow:serving:request_count_total", ("model_name", "digits"), ("status", "OK")),
        (f"{QUEUE}processed_batch_size_sum",),
        (f"{QUEUE}queuing_latency_count", ("thread_pool_name", "batch_threads")),
    ],
}


def read(stack: Stack, runtime: str) -> dict[tuple[object, ...], float]:
    variable, path = {
        "torch": ("TANDEM_TORCH__METRICS_PORT", "/metrics"),
        "tf": ("TANDEM_TF__REST_PORT", "/monitoring/prometheus/metrics"),
    }[runtime]
    page = httpx.get(f"http://{HOST}:{stack.environment[variable]}{path}")
    assert page.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(pair for pair in sample.labels.items() if pair[0].lower() != "hostname")): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


@pytest.mark.parametrize("runtime", COUNTS)
def test_what_was_asked_through_the_gateway_is_on_the_workers_page(
    stack: Stack, client: httpx.Client, runtime: str
) -> None:
    for model in ("digits", "shapes"):  # nothing is warmed up meanwhile
        stack.wait_until_ready(model)
    before = read(stack, runtime)
    for _ in range(20):
        answer = client.post("/v1/models/digits/predict", files={"image": PICTURE}, params={"runtime": runtime})
        assert answer.status_code == 200
    # What TorchServe's Python workers say goes through a pipe and comes after the answers.
    series = COUNTS[runtime]
    stack.wait_until(lambda: all(read(stack, runtime)[each] - before.get(each, 0) >= 20 for each in series))
    after = read(stack, runtime)
    assert [after[each] - before.get(each, 0) for each in series] == [20, 20, 20]
