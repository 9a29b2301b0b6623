"""What the server measures of itself: series of TensorFlow Serving and TensorFlow, by their names, labels and units.

Times on the page are microseconds. Sources, in TensorFlow Serving: servables/tensorflow/util.cc (requests),
batching/batching_session.cc and batching_util.h (batches); in TensorFlow: core/framework/metrics.cc (graph runs),
cc/saved_model/loader.cc (loads). The real server has more; a series is here only if it means the same.
"""

from __future__ import annotations

from tf_worker.errors import Code
from tf_worker.series import Counter, Sampler, Series, page

_US = 1e6


class Metrics:
    """Every series of the server. Durations are given in seconds. Thread-safe."""

    def __init__(self, thread_pool_name: str | None) -> None:
        """`thread_pool_name` is a label of the queue's series; None: no batching, and none of its series."""
        self._thread_pool_name = thread_pool_name or ""
        self._request_count = Counter("/tensorflow/serving/request_count", "model_name", "status")
        self._request_latency = _latency("/tensorflow/serving/request_latency", "model_name", "API", "entrypoint")
        self._runtime_latency = _latency("/tensorflow/serving/runtime_latency", "model_name", "API", "runtime")
        self._graph_runs = Counter("/tensorflow/core/graph_runs")
        self._graph_run_time = Counter("/tensorflow/core/graph_run_time_usecs")
        self._graph_run_times = Sampler(
            "/tensorflow/core/graph_run_time_usecs_histogram", scale=1000, growth=2, buckets=20
        )
        self._load_attempts = Counter("/tensorflow/cc/saved_model/load_attempt_count", "model_path", "status")
        self._load_time = Counter("/tensorflow/cc/saved_model/load_latency", "model_path")
        session = "/tensorflow/serving/batching_session"
        self._queuing_latency = Sampler(
            f"{session}/queuing_latency", "thread_pool_name", scale=100, growth=1.2, buckets=52
        )
        self._input_sizes = _sizes(f"{session}/input_batch_size")
        self._batch_sizes = _sizes(f"{session}/processed_batch_size")
        self._padding_sizes = _sizes(f"{session}/padding_size", "execution_batch_size")
        self._batch_runs = Counter(f"{session}/wrapped_run_count")
        self._series: list[Series] = [
            self._request_count,
            self._request_latency,
            self._runtime_latency,
            self._graph_runs,
            self._graph_run_time,
            self._graph_run_times,
            self._load_attempts,
            self._load_time,
        ]
        if thread_pool_name is not None:
            self._series += [
                self._queuing_latency,
                self._input_sizes,
                self._batch_sizes,
                self._padding_sizes,
                self._batch_runs,
            ]

    def page(self) -> str:
        """All series in Prometheus's text format."""
        return page(self._series)

    def answered(self, model: str, code: Code, duration_s: float, *, api: str, entrypoint: str) -> None:
        """A request has ended: Predict over gRPC, or any over REST. Only those that end well have a latency."""
        self._request_count.add(1, model, code.name)
        if code is Code.OK:
            self._request_latency.add(duration_s * _US, model, api, entrypoint)

    def ran(self, model: str, duration_s: float) -> None:
        """A request has its outputs: from the session's Run, or from the batch's, the wait in the queue included."""
        self._runtime_latency.add(duration_s * _US, model, "Predict", "TF1")

    def graph_ran(self, duration_s: float) -> None:
        """A graph has run to its end: for a batch, a lone request or a warm-up."""
        duration_us = duration_s * _US
        self._graph_runs.add(1)
        self._graph_run_time.add(round(duration_us))
        self._graph_run_times.add(duration_us)

    def loaded(self, path: str, *, success: bool, duration_s: float) -> None:
        """A version's folder has been loaded, or has not. The time counts either way, as with the real server."""
        self._load_attempts.add(1, path, "success" if success else "fail")
        self._load_time.add(round(duration_s * _US), path)

    def asked_for(self, rows: int) -> None:
        """An input tensor of a request has so many rows."""
        self._input_sizes.add(rows)

    def waited(self, duration_s: float) -> None:
        """A request's batch is about to run, after so long in the queue."""
        self._queuing_latency.add(duration_s * _US, self._thread_pool_name)

    def batched(self, rows: int, padding: int) -> None:
        """A batch is about to run: `rows` of requests and `padding`."""
        self._padding_sizes.add(padding, str(rows + padding))
        self._batch_sizes.add(rows + padding)

    def batch_ran(self) -> None:
        """A batch has run, well or not."""
        self._batch_runs.add(1)


def _latency(name: str, *labels: str) -> Sampler:
    return Sampler(name, *labels, scale=10, growth=1.8, buckets=33)


def _sizes(name: str, *labels: str) -> Sampler:
    return Sampler(name, *labels, scale=1, growth=2, buckets=14)
