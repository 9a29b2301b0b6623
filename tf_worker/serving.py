"""The server's life: load, listen, serve, drain. Imports TensorFlow; server.py checks the command line before that.

Requests are handled in threads, not in an event loop: a thread that runs the model itself spares two hand-overs a
request, which cost more than everything else around a small model (docs/tf-worker.md has the numbers).
"""

from __future__ import annotations

import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from queue import SimpleQueue
from threading import Thread
from typing import Any

import grpc
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tf_worker import following
from tf_worker.batcher import Batcher
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import ServingError, StartError
from tf_worker.flags import Flags
from tf_worker.loading import Loader
from tf_worker.metrics import Metrics
from tf_worker.models import Models
from tf_worker.rest import RestServer
from tf_worker.runner import DirectRunner
from tf_worker.services import ModelService, PredictionService
from tf_worker.workers import ThreadWorkers

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long requests that were accepted may take to finish once the server is told to stop."""
THREADS = 256
"""Requests handled at once, those that wait for a batch included; more wait for a thread."""
HEALTH_NAMES = ("", "ModelService", "PredictionService")
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # two servers on one port would share its connections, and neither would know
]


class Signal(Enum):
    READY = "the newest version of every model has loaded or failed"
    STOP = "SIGTERM or SIGINT"


Events = SimpleQueue[Signal | StartError]  # whose put() may be called in a signal handler


def serve(flags: Flags, config: Any, batching: BatchingParameters | None, metrics_path: str | None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. Raises StartError.

    `metrics_path` is where the metrics are, on the HTTP port; None: nowhere.
    """
    events: Events = SimpleQueue()
    metrics = Metrics(batching.thread_pool_name if batching else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: events.put(Signal.STOP))
    runner = Batcher(batching.num_batch_threads, metrics) if batching else DirectRunner()
    loader = Loader(
        _session_config(flags),
        batching,
        per_model_batching=flags.enable_per_model_batching_parameters,
        runner=runner,
        warm_up=flags.enable_model_warmup,
        warm_up_iterations=max(flags.num_request_iterations_for_warmup, 1),
        metrics=metrics,
    )
    workers = ThreadWorkers(
        load_threads=flags.num_load_threads,
        unload_threads=flags.num_unload_threads,
        retry_interval_s=flags.load_retry_interval_micros / 1e6,
    )
    models = Models(
        loader.load,
        workers,
        load_retries=flags.max_num_load_retries,
        labels_before_versions=flags.allow_version_labels_for_unavailable_models,
        on_ready=lambda: events.put(Signal.READY),
    )
    Thread(target=_keep_up, args=(models, config, flags, events), name="models", daemon=True).start()

    event = events.get()
    if isinstance(event, StartError):
        raise event
    if event is Signal.STOP:
        return
    healthy = health.HealthServicer()
    server = _listen(f"{flags.host}:{flags.port}", models, PredictionService(models, runner, metrics), healthy)
    pages = {} if metrics_path is None else {metrics_path: metrics.page}
    rest = RestServer(flags.host, flags.rest_api_port, pages) if flags.rest_api_port else None
    while events.get() is not Signal.STOP:
        pass
    log.info("stopping: finishing what was accepted, for at most %.0f s", GRACE_S)
    healthy.enter_graceful_shutdown()
    server.stop(GRACE_S).wait()
    if rest:  # last, so that Prometheus sees the drain
        rest.close()


def _keep_up(models: Models, config: Any, flags: Flags, events: Events) -> None:
    """Load the first configuration, then follow what comes and goes in the base paths, and what the file says."""
    try:
        models.reload(config)
    except ServingError as error:
        log.error("%s", error.message)
        events.put(StartError(error.message))  # of no effect once the server is ready: then the others are served
    if flags.model_config_file and flags.model_config_file_poll_wait_seconds:
        following.follow_config_file(models, flags.model_config_file, flags.model_config_file_poll_wait_seconds)
    following.follow_file_system(models, flags.file_system_poll_wait_seconds)


def _listen(address: str, models: Models, prediction: PredictionService, healthy: health.HealthServicer) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix="request"), options=_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}: {error}") from error
    server.start()
    for name in HEALTH_NAMES:
        healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("Running gRPC ModelServer at %s ...", address)
    return server


def _session_config(flags: Flags) -> Any:
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
        allow_soft_placement=True,
    )
    config.gpu_options.allow_growth = True  # another runtime may have its models on the same GPU
    return config
