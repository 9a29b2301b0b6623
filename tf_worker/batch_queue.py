"""Which requests make a batch: pure bookkeeping, for a caller that holds a lock.

The rules are those of TensorFlow's shared_batch_scheduler.h: a queue is a line of batches of which only the last is
open. A request joins it if its rows fit and else opens the next one, up to `max_enqueued_batches`. With large batches
split, it fills the open one first and opens as many as the rest of its rows need.
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
    """Items that are run together. Its first item's thread, the leader, sees that it is run."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.rows = 0
        self.full = Event()
        """Set once waiting for more items is of no use."""
        self.done = Event()
        """Set once every item has its result."""


class BatchQueue(Generic[Item]):
    """One line of batches for each key; items of different keys never meet in a batch."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Batch[Item]]] = {}

    def parts(self, key: Hashable, rows: int, parameters: BatchingParameters) -> list[int]:
        """The rows of each item that a request is to be added as, in order; mostly one.

        Raises ServingError: INVALID_ARGUMENT for more rows than a request may have, UNAVAILABLE for a full queue.
        """
        most_rows, most_batches = parameters.max_batch_size, parameters.max_enqueued_batches
        if rows > most_rows:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Task size {rows} is larger than maximum input batch size {most_rows}"
            )
        line = self._lines.get(key)
        limit = parameters.execution_size
        room = limit - line[-1].rows if line else limit
        if rows <= room:
            return [rows]
        queued = len(line) if line else 0
        if not parameters.enable_large_batch_splitting:
            if line and queued >= most_batches:
                raise ServingError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{queued} batches enqueued and max_enqueued_batches is {most_batches}",
                )
            return [rows]
        capacity = (most_batches - queued) * limit + (room if line else 0)
        if rows > capacity:
            raise ServingError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; task size is "
                f"{rows} but scheduling capacity is only {capacity} (num_enqueued_batches={queued},"
                f" max_enqueued_batches={most_batches}, open_batch_size={limit - room},"
                f" max_execution_batch_size={limit})",
            )
        head = [room] if room else []
        whole, rest = divmod(rows - room, limit)
        return head + [limit] * whole + ([rest] if rest else [])

    def add(self, key: Hashable, item: Item, rows: int, parameters: BatchingParameters) -> tuple[Batch[Item], bool]:
        """The batch that the item is in now, and whether it opened it, which makes it the leader.

        `rows` is one of what `parts` gave, with no other call in between but those for the parts before it.
        """
        limit = parameters.execution_size
        line = self._lines.setdefault(key, deque())
        opens = not line or line[-1].rows + rows > limit
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
