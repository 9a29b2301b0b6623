"""The batching parameters file, the same that `tensorflow_model_server --batching_parameters_file` reads.

`BatchingParameters` is not among the messages of the tensorflow-serving-api package. Its field names, numbers and
types are in TensorFlow Serving's servables/tensorflow/session_bundle_config.proto, the defaults and limits in
TensorFlow's shared_batch_scheduler.h; both are restated here as facts.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_worker import text_proto
from tf_worker.errors import StartError

_WRAPPED = {
    "max_batch_size": (1, "google.protobuf.Int64Value"),
    "batch_timeout_micros": (2, "google.protobuf.Int64Value"),
    "max_enqueued_batches": (3, "google.protobuf.Int64Value"),
    "num_batch_threads": (4, "google.protobuf.Int64Value"),
    "thread_pool_name": (5, "google.protobuf.StringValue"),
    "enable_large_batch_splitting": (8, "google.protobuf.BoolValue"),
    "max_execution_batch_size": (9, "google.protobuf.Int64Value"),
}
_MESSAGES = {
    "BatchingParameters": {
        **_WRAPPED,
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
    }
}


@dataclass(frozen=True)
class BatchingParameters:
    max_batch_size: int = 1000
    """Most rows in a request; unless large batches are split, most rows in a batch as well."""
    batch_timeout_micros: int = 0
    """Longest wait of a request for company while a thread is free, in microseconds."""
    max_enqueued_batches: int = 10
    """Most batches waiting for a thread, for each signature of each version; then UNAVAILABLE."""
    num_batch_threads: int = os.cpu_count() or 1
    """Batches run at once, all models together."""
    thread_pool_name: str = "batch_threads"
    """A label of the queue's metrics."""
    allowed_batch_sizes: tuple[int, ...] = ()
    """Sizes a batch is padded up to; none: no padding."""
    pad_variable_length_inputs: bool = False
    """Whether rows of different shapes meet in a batch, each padded at its end with its own first value."""
    enable_large_batch_splitting: bool = False
    """Whether a request is spread over several batches where it does not fit into one."""
    max_execution_batch_size: int | None = None
    """Most rows in a batch where large ones are split; None: max_batch_size."""

    def __post_init__(self) -> None:
        if not self.max_enqueued_batches and not self.enable_large_batch_splitting:
            object.__setattr__(self, "max_enqueued_batches", 1)  # as the real server takes it
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "execution_size"):
            if getattr(self, name) < 1:
                raise StartError(f"{name} must be positive; was {getattr(self, name)}")
        if self.execution_size > self.max_batch_size:
            raise StartError(
                f"max_execution_batch_size must not be over max_batch_size, {self.max_batch_size};"
                f" was {self.execution_size}"
            )
        if self.batch_timeout_micros < 0:
            raise StartError(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
            raise StartError("allowed_batch_sizes must be positive and increasing")
        if sizes and sizes[-1] != self.max_batch_size:
            raise StartError(
                "Last entry in allowed_batch_sizes must match max_batch_size; "
                f"last entry was {sizes[-1]}; expected {self.max_batch_size}"
            )

    @property
    def execution_size(self) -> int:
        """Most rows in a batch."""
        if not self.enable_large_batch_splitting or self.max_execution_batch_size is None:
            return self.max_batch_size
        return self.max_execution_batch_size

    def padded_size(self, rows: int) -> int:
        """The size a batch of so many rows is run with; there is no row to pad an empty one with."""
        sizes = self.allowed_batch_sizes
        return sizes[bisect_left(sizes, rows)] if sizes and rows else rows

    def likely_sizes(self) -> list[int]:
        """The sizes worth warming up: all that are allowed, or the powers of two and the greatest."""
        most = self.execution_size
        if self.allowed_batch_sizes:
            return [size for size in self.allowed_batch_sizes if size <= self.padded_size(most)]
        return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def read(path: Path) -> BatchingParameters:
    """Raises StartError for a file that cannot be read, or a value out of range."""
    message = text_proto.read(path, text_proto.define(_MESSAGES, "BatchingParameters"))
    values: dict[str, Any] = {
        name: getattr(message, name).value
        for name in BatchingParameters.__dataclass_fields__
        if name in _WRAPPED and message.HasField(name)
    }
    try:
        return BatchingParameters(
            **values,
            allowed_batch_sizes=tuple(message.allowed_batch_sizes),
            pad_variable_length_inputs=message.pad_variable_length_inputs,
        )
    except StartError as error:
        raise StartError(f"{path}: {error}") from error
