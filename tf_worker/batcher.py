"""Dynamic batching: requests wait a moment for company, are run as one batch, and get their own rows back.

The thread of the request that opened a batch leads it: it waits for `batch_timeout_micros` or until the batch is
full, then for one of `num_batch_threads` places, and runs it. Others may join until then. A lone request on an idle
server is therefore run at once (with no timeout) and in its own thread: batching costs it nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, Semaphore

import numpy as np

from tf_worker.batch_queue import BatchQueue
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.servable import Signature
from tf_worker.tensors import Array

log = logging.getLogger(__name__)

EXPIRED = "Run() timeout exceeded while waiting in batching queue"
Result = list[Array] | ServingError


@dataclass(eq=False)
class Task:
    """A request in the queue, and then its result."""

    inputs: Sequence[Array]
    rows: int
    wanted: Callable[[], bool]
    queued_s: float
    """When it joined the queue, on the performance counter."""
    result: Result = field(default_factory=lambda: ServingError(Code.RESOURCE_EXHAUSTED, EXPIRED))


class Batcher:
    """A Runner. Requests of one signature meet if they ask for the same outputs and their rows have the same shapes."""

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        self._parameters = parameters
        self._metrics = metrics
        self._timeout_s = parameters.batch_timeout_micros / 1e6
        self._queue: BatchQueue[Task] = BatchQueue(parameters)
        self._queue_lock = Lock()
        self._places = Semaphore(parameters.num_batch_threads)

    def run(
        self, signature: Signature, outputs: tuple[str, ...], inputs: Sequence[Array], wanted: Callable[[], bool]
    ) -> list[Array]:
        rows = _rows(inputs)
        for _ in inputs:
            self._metrics.asked_for(rows)
        task = Task(inputs, rows, wanted, time.perf_counter())
        key = (signature, outputs, *(array.shape[1:] for array in inputs))
        with self._queue_lock:
            batch, leads = self._queue.add(key, task, task.rows)
        if leads:
            try:
                if self._timeout_s:
                    batch.full.wait(self._timeout_s)
                with self._places:
                    with self._queue_lock:
                        self._queue.take(key, batch)
                    taken_s = time.perf_counter()
                    for item in batch.items:
                        self._metrics.waited(taken_s - item.queued_s)
                    self._run(signature, outputs, [item for item in batch.items if item.wanted()])
            finally:
                batch.done.set()
        else:
            batch.done.wait()
        if isinstance(task.result, ServingError):
            raise task.result
        return task.result

    def _run(self, signature: Signature, outputs: tuple[str, ...], tasks: list[Task]) -> None:
        """Give each task its result. If the batch fails, each is run alone: a bad item must not spoil the others."""
        if not tasks:
            return
        try:
            rows = sum(task.rows for task in tasks)
            size = self._parameters.padded_size(rows)
            merged = [_merge(arrays, size - rows) for arrays in zip(*(task.inputs for task in tasks), strict=True)]
            self._metrics.batched(rows, size - rows)
            try:
                arrays = signature.run(outputs, merged)
            finally:
                self._metrics.batch_ran()
            _check_batch_dimension(arrays, size)
        except Exception as error:
            if len(tasks) > 1:
                log.info("a batch of %d requests failed, each is run alone: %s", len(tasks), error)
                for task in tasks:
                    self._run(signature, outputs, [task])
                return
            if not isinstance(error, ServingError):
                log.exception("a batch failed")
                error = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            tasks[0].result = error
            return
        start = 0
        for task in tasks:
            task.result = [array[start : start + task.rows] for array in arrays]
            start += task.rows


def _rows(inputs: Sequence[Array]) -> int:
    """Raises ServingError INVALID_ARGUMENT for inputs that cannot be part of a batch."""
    if not inputs:
        raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs):
        raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one dimension")
    if len({len(array) for array in inputs}) > 1:
        raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() input tensors must have equal 0th-dimension size")
    return len(inputs[0])


def _merge(arrays: Sequence[Array], padding: int) -> Array:
    """The arrays' rows one after the other, then `padding` copies of a row of theirs."""
    if padding:
        row = next(array[:1] for array in arrays if len(array))
        arrays = [*arrays, *[row] * padding]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _check_batch_dimension(arrays: Sequence[Array], rows: int) -> None:
    """Raises ServingError FAILED_PRECONDITION for outputs that have no row for each row that went in."""
    for array in arrays:
        if array.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != rows:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the"
                " input tensors",
            )
