"""What is run before a version is reported AVAILABLE, so that no request is the first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from tf_worker.errors import Code, ServingError
from tf_worker.runner import Runner
from tf_worker.servable import Servable

log = logging.getLogger(__name__)

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
_REFUSED = ("session_run_log", "predict_streamed_log")


def replay(path: Path, servable: Servable, runner: Runner, iterations: int) -> None:
    """Run each request of the file of PredictionLog records so often; their answers are not looked at.

    Raises ServingError for what fails the load on the real server, too: a file that is no TFRecord, a record that is
    no PredictionLog, a request that fails, more records than are allowed.
    """
    count = 0
    skipped: set[str] = set()
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            kind = _replay_one(record, path, servable, runner, iterations)
            if kind is not None and kind not in skipped:
                skipped.add(kind)
                log.warning("the records of %s in %s are skipped: the stand-in answers Predict only", kind, path)
            count += 1
            if count > MAX_RECORDS:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
                )
    except tf.errors.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error
    except tf.errors.OpError as error:
        raise ServingError.from_tensorflow(error) from error
    log.info("Finished reading warmup data for model at %s. Number of warmup records read: %d.", path, count)


def _replay_one(record: bytes, path: Path, servable: Servable, runner: Runner, iterations: int) -> str | None:
    """Returns the kind of a record that cannot be replayed here, and can be by the real server."""
    try:
        entry = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record from {path}") from error
    kind: str | None = entry.WhichOneof("log_type")
    if kind in _REFUSED:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    if kind != "predict_log":
        return kind
    for _ in range(iterations):
        _predict(entry.predict_log.request, servable, runner)
    return None


def _predict(request: Any, servable: Servable, runner: Runner) -> None:
    signature = servable.signature(request.model_spec.signature_name)
    inputs = signature.read(request.inputs)
    runner.run(signature, signature.select(request.output_filter), inputs, lambda: True)


def run_zeros(servable: Servable, sizes: Sequence[int], *, budget_s: float, clock: Callable[[], float]) -> None:
    """Run each signature with zeros of each size, the smallest and the largest first, until the budget is spent."""
    end = clock() + budget_s
    smallest_and_largest = {min(sizes): None, max(sizes): None}
    for size in smallest_and_largest | dict.fromkeys(sizes):
        for signature in servable.signatures.values():
            if clock() > end:
                return
            try:
                signature.warm_up(size)
            except ServingError as error:
                log.warning("warm-up of %s with %d zeros: %s", signature.name, size, error.message)
