"""The bytes that requests hold: what is uploaded as it arrives, then the tensors made of it."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from prometheus_client import Gauge

from gateway.errors import Overloaded

_RETRY_S = 1.0


class Uploads:
    """All requests under way, together at most `most` bytes. A request that is alone always has room."""

    def __init__(self, most: int, held: Gauge) -> None:
        """`held` shows how many bytes are."""
        self._most = most
        self._held = 0
        self._gauge = held

    def begin(self) -> Upload:
        return Upload(self)

    def fits(self, count: int, own: int) -> bool:
        """Whether so many more bytes may be held by one that holds `own` of them already."""
        return self._held + count <= self._most or self._held == own

    def change(self, count: int) -> None:
        self._held += count
        self._gauge.inc(count)


class Upload:
    """What one request holds, until the block ends."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._own = 0
        self._end = ExitStack()
        self.images: list[bytes] = []
        """Each picture's file, until it is decoded."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.close()
        self.give_back(self._own)

    @property
    def at_end(self) -> ExitStack:
        """Closed when the block ends."""
        return self._end

    @property
    def held(self) -> int:
        return self._own

    def check(self, count: int) -> None:
        """Raises what `take` would raise."""
        if not self._uploads.fits(count, self._own):
            raise Overloaded(
                "The requests under way hold as much memory as they may. Try again later.", retry_after_s=_RETRY_S
            )

    def take(self, count: int) -> None:
        """Hold so many bytes more. Raises Overloaded, and holds none of them, where they are too many."""
        self.check(count)
        self._own += count
        self._uploads.change(count)

    def give_back(self, count: int) -> None:
        self._own -= count
        self._uploads.change(-count)
