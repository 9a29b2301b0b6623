"""The metrics page after real requests, read as Prometheus reads it."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.tf_worker.conftest import ROOT, Rest, Server, free_port, request, run_server
from tests.tf_worker.test_shutdown import STEPS
from tf_worker.batcher import Batcher
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.metrics import Metrics
from tf_worker.series import Sampler
from tf_worker.servable import Signature
from tf_worker.tensors import Array

PATH = "/monitoring/prometheus/metrics"
SERVING = ":tensorflow:serving:"
QUEUE = f"{SERVING}batching_session:"
CORE = ":tensorflow:core:"


class Page:
    """The samples of a page, by name and labels."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples = {
            # Prometheus itself takes a counter's name as it is, this parser adds the suffix.
            (sample.name.removesuffix("_total"), *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """0 for a series that has no sample yet."""
        return self.samples.get((name, *sorted(labels.items())), 0.0)


class Monitored:
    """A server and its HTTP port."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str = PATH) -> tuple[int, str, str]:
        """Status, content type and text."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()

    def page(self) -> Page:
        return Page(self.get()[2])


@pytest.fixture(scope="module")
def monitored(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """A server of one model that batches, with the monitoring file of the official image."""
    port = free_port()
    folder = tmp_path_factory.mktemp("monitored")
    batching = folder / "batching.config"
    batching.write_text("max_batch_size { value: 8 } num_batch_threads { value: 2 }")
    with run_server(
        folder,
        f"--rest_api_port={port}",
        f"--monitoring_config_file={ROOT / 'tf_worker' / 'monitoring.config'}",
        "--model_name=scale",
        f"--model_base_path={model_folder / 'scale'}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
    ) as server:
        server.states("scale")
        server.predict("scale", x=[[0.0, 0.0, 0.0]])  # so that each series has a sample to begin with
        yield Monitored(server, port)


def test_every_series_has_the_real_servers_name_type_and_labels(monitored: Monitored) -> None:
    status, kind, text = monitored.get()
    page = Page(text)
    assert (status, kind) == (200, "text/plain")
    assert page.types == {
        f"{SERVING}request_count": "counter",
        f"{SERVING}request_latency": "histogram",
        f"{SERVING}runtime_latency": "histogram",
        f"{QUEUE}queuing_latency": "histogram",
        f"{QUEUE}input_batch_size": "histogram",
        f"{QUEUE}processed_batch_size": "histogram",
        f"{QUEUE}padding_size": "histogram",
        f"{QUEUE}wrapped_run_count": "counter",
        f"{CORE}graph_runs": "counter",
        f"{CORE}graph_run_time_usecs": "counter",
        f"{CORE}graph_run_time_usecs_histogram": "histogram",
        ":tensorflow:cc:saved_model:load_attempt_count": "counter",
        ":tensorflow:cc:saved_model:load_latency": "counter",
    }
    labels = {name: tuple(label for label, _ in pairs if label != "le") for name, *pairs in page.samples}
    assert {name: names for name, names in labels.items() if names} == {
        f"{SERVING}request_count": ("model_name", "status"),
        **{f"{SERVING}request_latency{end}": ("API", "entrypoint", "model_name") for end in HISTOGRAM},
        **{f"{SERVING}runtime_latency{end}": ("API", "model_name", "runtime") for end in HISTOGRAM},
        **{f"{QUEUE}queuing_latency{end}": ("thread_pool_name",) for end in HISTOGRAM},
        **{f"{QUEUE}padding_size{end}": ("execution_batch_size",) for end in HISTOGRAM},
        ":tensorflow:cc:saved_model:load_attempt_count": ("model_path", "status"),
        ":tensorflow:cc:saved_model:load_latency": ("model_path",),
    }


HISTOGRAM = ("_bucket", "_sum", "_count")
GRPC = {"model_name": "scale", "API": "Predict", "entrypoint": "GRPC"}
TF1 = {"model_name": "scale", "API": "Predict", "runtime": "TF1"}
THREADS = {"thread_pool_name": "batch_threads"}


def test_the_docs_name_every_series() -> None:
    table = (ROOT / "docs" / "tf-worker.md").read_text()
    missing = [
        name for name in Page(Metrics("threads").page()).types if f"`{name.removeprefix(':tensorflow:')}`" not in table
    ]
    assert missing == []


def test_requests_rows_batches_and_times_add_up(monitored: Monitored) -> None:
    before = monitored.page()
    rows = [1, 2, 3, 4, 5] * 8
    with ThreadPoolExecutor(len(rows)) as pool:
        list(pool.map(lambda n: monitored.server.predict("scale", x=[[1.0, 2.0, 3.0]] * n), rows))
    after = monitored.page()

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown(f"{SERVING}request_count", model_name="scale", status="OK") == len(rows)
    assert grown(f"{SERVING}request_latency_count", **GRPC) == len(rows)
    assert grown(f"{SERVING}runtime_latency_count", **TF1) == len(rows)
    assert grown(f"{QUEUE}queuing_latency_count", **THREADS) == len(rows)
    assert grown(f"{QUEUE}input_batch_size_count") == len(rows)
    assert grown(f"{QUEUE}input_batch_size_sum") == sum(rows)
    assert grown(f"{QUEUE}processed_batch_size_sum") == sum(rows)
    batches = grown(f"{QUEUE}processed_batch_size_count")
    assert sum(rows) / 8 <= batches <= len(rows)
    assert grown(f"{QUEUE}wrapped_run_count") == grown(f"{CORE}graph_runs") == batches
    assert grown(f"{CORE}graph_run_time_usecs_histogram_count") == batches
    running = grown(f"{CORE}graph_run_time_usecs_histogram_sum")
    assert grown(f"{CORE}graph_run_time_usecs") == pytest.approx(running, abs=batches)
    waiting = grown(f"{QUEUE}queuing_latency_sum", **THREADS)
    # A request's time holds its wait and its batch's run, and each batch's run is in the time of at least one request.
    assert 0 < waiting + running < grown(f"{SERVING}runtime_latency_sum", **TF1)
    assert grown(f"{SERVING}runtime_latency_sum", **TF1) < grown(f"{SERVING}request_latency_sum", **GRPC)


@pytest.mark.parametrize(
    ("model", "status"), [("scale", "INVALID_ARGUMENT"), ("none", "NOT_FOUND")], ids=["bad input", "no model"]
)
def test_a_refused_request_is_counted_by_its_status_and_has_no_latency(
    monitored: Monitored, model: str, status: str
) -> None:
    before = monitored.page()
    with pytest.raises(grpc.RpcError):
        monitored.server.predict(model, y=1.0)
    after = monitored.page()
    count = f"{SERVING}request_count"
    assert (
        after.value(count, model_name=model, status=status) == before.value(count, model_name=model, status=status) + 1
    )
    assert after.value(f"{SERVING}request_latency_count", **GRPC) == before.value(
        f"{SERVING}request_latency_count", **GRPC
    )


def test_a_load_is_counted_by_folder_and_outcome(model_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    folder = model_folder / "half_broken"
    (tmp_path / "models.config").write_text(
        f'model_config_list {{ config {{ name: "half_broken" base_path: "{folder}" model_platform: "tensorflow"'
        " model_version_policy { specific { versions: [1, 2] } } } }"
    )
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true path: '/page' }")
    with run_server(
        tmp_path,
        f"--rest_api_port={port}",
        f"--monitoring_config_file={tmp_path / 'monitoring.config'}",
        f"--model_config_file={tmp_path / 'models.config'}",
    ) as server:
        while any(state in ("START", "LOADING") for state, _, _ in server.states("half_broken").values()):
            pass
        monitored = Monitored(server, port)
        page = Page(monitored.get("/page")[2])
        loads = ":tensorflow:cc:saved_model:load_attempt_count"
        assert {key: value for key, value in page.samples.items() if key[0] == loads} == {
            (loads, ("model_path", str(folder / "1")), ("status", "success")): 1,
            (loads, ("model_path", str(folder / "2")), ("status", "fail")): 1,
        }
        assert page.value(":tensorflow:cc:saved_model:load_latency", model_path=str(folder / "1")) > 0
        assert not any(name.startswith(QUEUE) for name in page.types)  # it does not batch
        assert monitored.get()[0] == 404  # the usual path


def test_another_path_is_not_found_with_a_sentence(monitored: Monitored) -> None:
    status, kind, text = monitored.get("/metrics")
    assert (status, kind) == (404, "text/plain")
    assert text == f"There is no /metrics here. On this port there is /v1/models/NAME, {PATH}.\n"


def test_the_page_takes_no_query(monitored: Monitored) -> None:
    status, _, text = monitored.get(f"{PATH}?x=1")
    assert (status, text) == (400, f"Unexpected path: {PATH}?x=1. Should be {PATH}")


def test_rest_requests_are_counted_with_an_entrypoint_of_their_own(monitored: Monitored) -> None:
    before = monitored.page()
    rest = Rest(monitored.port)
    assert rest.post("/v1/models/scale:predict", {"instances": [[1, 2, 3]]}).status == 200
    assert rest.post("/v1/models/scale:predict", {"instances": []}).status == 400
    after = monitored.page()

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown(f"{SERVING}request_count", model_name="scale", status="OK") == 1
    assert grown(f"{SERVING}request_count", model_name="scale", status="INVALID_ARGUMENT") == 1
    rest_labels = {"model_name": "scale", "API": "predict", "entrypoint": "REST"}
    assert grown(f"{SERVING}request_latency_count", **rest_labels) == 1
    assert grown(f"{SERVING}request_latency_count", **GRPC) == 0
    assert grown(f"{SERVING}runtime_latency_count", **TF1) == 1


def test_the_page_is_there_until_accepted_requests_have_been_answered(tmp_path: Path, model_folder: Path) -> None:
    port = free_port()
    with run_server(
        tmp_path,
        f"--rest_api_port={port}",
        f"--monitoring_config_file={ROOT / 'tf_worker' / 'monitoring.config'}",
        "--model_name=slow",
        f"--model_base_path={model_folder / 'slow'}",
    ) as server:
        server.states("slow")
        accepted = server.prediction.Predict.future(request("slow", n=STEPS), timeout=30)
        server.states("slow")  # on the same connection, so it is answered after the other has been accepted
        server.process.send_signal(signal.SIGTERM)
        while "finishing what was accepted" not in server.log:
            pass
        status, _, _ = Monitored(server, port).get()
        assert not accepted.done()
        assert status == 200
        assert list(accepted.result().outputs["n"].int_val) == [STEPS]
        assert server.process.wait(10) == 0
        with pytest.raises(urllib.error.URLError, match="refused"):
            Monitored(server, port).get()


class Identity:
    batching = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(2, 4))

    def run(self, outputs: tuple[str, ...], inputs: Sequence[Array]) -> list[Array]:
        return list(inputs)


def test_padding_is_counted_by_the_size_that_is_run() -> None:
    metrics = Metrics("threads")
    batcher = Batcher(1, metrics)
    for rows in (1, 2, 3):
        batcher.run(cast(Signature, Identity()), ("x",), [np.zeros((rows, 1))], lambda: True)
    page = Page(metrics.page())
    padding = f"{QUEUE}padding_size"
    found: dict[str, Any] = {
        size: [page.value(f"{padding}{end}", execution_batch_size=size) for end in ("_count", "_sum")]
        for size in ("2", "4")
    }
    assert found == {"2": [2, 1], "4": [1, 1]}
    assert page.value(f"{QUEUE}processed_batch_size_sum") == 2 + 2 + 4
    assert page.value(f"{QUEUE}input_batch_size_sum") == 1 + 2 + 3


def test_a_value_that_equals_a_bound_is_in_the_next_bucket_as_in_tensorflow() -> None:
    sizes = Sampler("/sizes", scale=1, growth=2, buckets=3)
    for value in (1, 3, 4, 100):
        sizes.add(value)
    assert list(sizes.lines()) == [
        "# TYPE :sizes histogram",
        ':sizes_bucket{le="1"} 0',
        ':sizes_bucket{le="2"} 1',
        ':sizes_bucket{le="4"} 2',
        ':sizes_bucket{le="+Inf"} 4',
        ":sizes_sum{} 108.0",
        ":sizes_count{} 4",
    ]


def test_quotes_backslashes_and_line_ends_in_a_label_are_escaped() -> None:
    metrics = Metrics(None)
    name = 'a"b\\c\nd'
    metrics.ran(name, 0.001)
    page = Page(metrics.page())
    assert page.value(f"{SERVING}runtime_latency_count", **TF1 | {"model_name": name}) == 1
