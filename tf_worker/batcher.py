"""Dynamic batching: requests wait a moment for company, are run as one batch, and get their own rows back.

The thread of the request that opened a batch leads it: it waits for `batch_timeout_micros` or until the batch is
full, then for one of `num_batch_threads` places, and runs it. Others may join until then. A lone request on an idle
server is therefore run at once (with no timeout) and in its own thread: batching costs it nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock, Semaphore

import numpy as np

from tf_worker.batch_queue import Batch, BatchQueue
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.runner import DirectRunner
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
    """A Runner. Requests of one signature meet if they ask for the same outputs and their rows have the same shapes.

    How they meet is each signature's own to say (`Signature.batching`); the places to run in are all signatures'.
    """

    def __init__(self, num_batch_threads: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._queue: BatchQueue[Task] = BatchQueue()
        self._queue_lock = Lock()
        self._places = Semaphore(num_batch_threads)
        self._leaders = ThreadPoolExecutor(num_batch_threads, thread_name_prefix="batch")
        """For all batches but the last that a split request has opened: it can lead one itself."""

    def run(
        self, signature: Signature, outputs: tuple[str, ...], inputs: Sequence[Array], wanted: Callable[[], bool]
    ) -> list[Array]:
        parameters = signature.batching
        if parameters is None:
            return DirectRunner().run(signature, outputs, inputs, wanted)
        rows = _rows(inputs)
        for _ in inputs:
            self._metrics.asked_for(rows)
        now_s = time.perf_counter()
        row = [array.ndim if parameters.pad_variable_length_inputs else array.shape[1:] for array in inputs]
        key = (signature, outputs, *row)
        tasks: list[Task] = []
        led: list[Batch[Task]] = []
        joined: list[Batch[Task]] = []
        with self._queue_lock:
            sizes = self._queue.parts(key, rows, parameters)
            for part, size in zip(_split(inputs, sizes), sizes, strict=True):
                tasks.append(Task(part, size, wanted, now_s))
                batch, leads = self._queue.add(key, tasks[-1], size, parameters)
                (led if leads else joined).append(batch)
        for batch in led[:-1]:
            self._leaders.submit(self._lead, key, batch, signature, outputs, parameters)
            joined.append(batch)
        if led:
            self._lead(key, led[-1], signature, outputs, parameters)
        for batch in joined:
            batch.done.wait()
        return _joined([task.result for task in tasks])

    def _lead(
        self,
        key: Hashable,
        batch: Batch[Task],
        signature: Signature,
        outputs: tuple[str, ...],
        parameters: BatchingParameters,
    ) -> None:
        """See the batch through: wait for company and for a place, and run it."""
        try:
            if parameters.batch_timeout_micros:
                batch.full.wait(parameters.batch_timeout_micros / 1e6)
            with self._places:
                with self._queue_lock:
                    self._queue.take(key, batch)
                taken_s = time.perf_counter()
                for item in batch.items:
                    self._metrics.waited(taken_s - item.queued_s)
                self._run(signature, outputs, [item for item in batch.items if item.wanted()], parameters)
        finally:
            batch.done.set()

    def _run(
        self, signature: Signature, outputs: tuple[str, ...], tasks: list[Task], parameters: BatchingParameters
    ) -> None:
        """Give each task its result. If the batch fails, each is run alone: a bad item must not spoil the others."""
        if not tasks:
            return
        try:
            rows = sum(task.rows for task in tasks)
            size = parameters.padded_size(rows)
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
                    self._run(signature, outputs, [task], parameters)
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


def _split(inputs: Sequence[Array], sizes: Sequence[int]) -> Iterator[Sequence[Array]]:
    """The inputs' rows in parts of those sizes, as views."""
    if len(sizes) == 1:
        yield inputs
        return
    start = 0
    for size in sizes:
        yield [array[start : start + size] for array in inputs]
        start += size


def _joined(results: Sequence[Result]) -> list[Array]:
    """The outputs of the parts of a request as one. Raises the first part's ServingError."""
    parts: list[list[Array]] = []
    for result in results:
        if isinstance(result, ServingError):
            raise result
        parts.append(result)
    return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _merge(arrays: Sequence[Array], padding: int) -> Array:
    """The arrays' rows one after the other, then `padding` copies of a row of theirs."""
    if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        arrays = _pad(arrays)
    if padding:
        row = next(array[:1] for array in reversed(arrays) if len(array))
        arrays = [*arrays, *[row] * padding]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _pad(arrays: Sequence[Array]) -> list[Array]:
    """Each array at the end of each dimension but the first, with its own first value, to the largest of all.

    Raises ServingError INVALID_ARGUMENT for an array that has no value.
    """
    largest = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    padded = []
    for array in arrays:
        if not array.size:
            raise ServingError(Code.INVALID_ARGUMENT, "Got empty tensor in batch of non-empty tensors.")
        filled = np.full((len(array), *largest), array.flat[0], array.dtype)
        filled[tuple(map(slice, array.shape))] = array
        padded.append(filled)
    return padded


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
