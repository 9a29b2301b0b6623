"""Which requests make a batch: pure bookkeeping, for a caller that holds a lock.

The rules are those of TensorFlow's shared_batch_scheduler.h: a queue is a line of batches of which only the last is
open. A request joins it if its rows fit and else opens the next one, up to `max_enqueued_batches`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from threading import Event
from typing import Generic, TypeVar

from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError

Item = TypeVar("Item")


class Batch(Generic[Item]):
    """Items that are run together. Its first item's thread, the leader, runs it."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.rows = 0
        self.full = Event()
        """Set once waiting for more items is of no use."""
        self.done = Event()
        """Set once every item has its result."""


class BatchQueue(Generic[Item]):
    """One line of batches for each key; items of different keys never meet in a batch."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._lines: dict[Hashable, deque[Batch[Item]]] = {}

    def add(self, key: Hashable, item: Item, rows: int) -> tuple[Batch[Item], bool]:
        """The batch that the item is in now, and whether it opened it, which makes it the leader.

        Raises ServingError: INVALID_ARGUMENT for more rows than a batch may have, UNAVAILABLE for a full queue.
        """
        limit, most = self._parameters.max_batch_size, self._parameters.max_enqueued_batches
        if rows > limit:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Task size {rows} is larger than maximum input batch size {limit}"
            )
        line = self._lines.setdefault(key, deque())
        opens = not line or line[-1].rows + rows > limit
        if opens and len(line) >= most:
            raise ServingError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(line)} batches enqueued and max_enqueued_batches is {most}",
            )
        if opens:
            if line:
                line[-1].full.set()
            line.append(Batch())
        batch = line[-1]
        batch.items.append(item)
        batch.rows += rows
        if batch.rows >= limit:
            batch.full.set()
        return batch, opens

    def take(self, key: Hashable, batch: Batch[Item]) -> None:
        """The batch is about to be run: nothing joins it any more, and it no longer counts as queued."""
        line = self._lines[key]
        line.remove(batch)
        if not line:
            del self._lines[key]
