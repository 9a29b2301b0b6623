"""The server's life: load, listen, serve, drain. Imports TensorFlow; server.py checks the command line before that.

Requests are handled in threads, not in an event loop: a thread that runs the model itself spares two hand-overs a
request, which cost more than everything else around a small model (docs/tf-worker.md has the numbers).
"""

from __future__ import annotations

import logging
import signal
import time
from enum import Enum
from queue import SimpleQueue
from threading import Thread
from typing import Any

import grpc
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

from tf_worker import following, text_proto
from tf_worker.batcher import Batcher
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import ServingError, StartError
from tf_worker.flags import Flags
from tf_worker.grpc_server import GrpcServer
from tf_worker.loading import Loader
from tf_worker.metrics import Metrics
from tf_worker.models import Models
from tf_worker.rest import RestServer
from tf_worker.rest_api import RestApi
from tf_worker.runner import DirectRunner
from tf_worker.server_core import ServerCore
from tf_worker.services import ModelService, PredictionService
from tf_worker.workers import ThreadWorkers

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long requests that were accepted may take to finish once the server is told to stop."""


class Signal(Enum):
    READY = "the newest version of every model has loaded or failed"
    STOP = "SIGTERM or SIGINT"


Events = SimpleQueue[Signal | StartError]  # whose put() may be called in a signal handler


def serve(
    flags: Flags,
    config: Any,
    batching: BatchingParameters | None,
    metrics_path: str | None,
    credentials: grpc.ServerCredentials | None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. Raises StartError.

    `metrics_path` is where the metrics are, on the HTTP port; None: nowhere. `credentials` are for gRPC; None: no TLS.
    """
    events: Events = SimpleQueue()
    metrics = Metrics(batching.thread_pool_name if batching else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: events.put(Signal.STOP))
    runner = Batcher(batching.num_batch_threads, metrics) if batching else DirectRunner()
    loader = Loader(
        flags.saved_model_tags,
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
    core = ServerCore(models, runner, metrics, as_tensor_content=flags.enable_serialization_as_tensor_content)
    server = GrpcServer(flags, credentials, PredictionService(core, metrics), ModelService(core))
    rest = _rest(flags, core, metrics, metrics_path) if flags.rest_api_port else None
    while events.get() is not Signal.STOP:
        pass
    log.info("stopping: finishing what was accepted, for at most %.0f s", GRACE_S)
    end = time.monotonic() + GRACE_S
    if rest:
        rest.refuse()
    server.drain(GRACE_S)
    if rest:  # its page last, so that Prometheus sees the drain
        rest.drain(end - time.monotonic())
        rest.close()


def _rest(flags: Flags, core: ServerCore, metrics: Metrics, metrics_path: str | None) -> RestServer:
    timeout_s = flags.rest_api_timeout_in_ms / 1e3 if flags.rest_api_timeout_in_ms > 0 else None
    api = RestApi(core, metrics, threads=flags.rest_api_num_threads, timeout_s=timeout_s)
    pages = {} if metrics_path is None else {metrics_path: metrics.page}
    return RestServer(flags.host, flags.rest_api_port, api, pages, cors=flags.rest_api_enable_cors_support)


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


def _session_config(flags: Flags) -> Any:
    """Raises StartError."""
    config = config_pb2.ConfigProto(allow_soft_placement=True)
    if flags.tensorflow_session_config_file is not None:
        text_proto.read(flags.tensorflow_session_config_file, config)
    threads = (flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism)
    if not any(threads):
        threads = (flags.tensorflow_session_parallelism,) * 2
    config.intra_op_parallelism_threads, config.inter_op_parallelism_threads = threads
    config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
    if not flags.per_process_gpu_memory_fraction:
        config.gpu_options.allow_growth = True  # another runtime may have its models on the same GPU
    if flags.mixed_precision == "bfloat16":
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON
    return config
