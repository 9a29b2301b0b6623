"""Where the gateway's processes post how many connections each has, so that new ones go to who has the fewest."""

from __future__ import annotations

import mmap
import struct

_SLOT = struct.Struct("=I")
_NOBODY = 0xFFFFFFFF


class Board:
    """Of a process that was killed the supervisor says so; one that hangs keeps its number."""

    def __init__(self, fd: int, slots: int, own: int | None = None) -> None:
        """`fd`: a file of at least `size(slots)` bytes. `own`: the slot of this process."""
        self._memory = mmap.mmap(fd, self.size(slots))
        self._slots = slots
        self._own = own
        if own is not None:
            self.post(0)

    @staticmethod
    def size(slots: int) -> int:
        return slots * _SLOT.size

    def post(self, connections: int) -> None:
        """This process has so many."""
        assert self._own is not None  # noqa: S101  the supervisor has none
        _SLOT.pack_into(self._memory, self._own * _SLOT.size, connections)

    def gone(self, slot: int) -> None:
        """Nobody takes connections there."""
        _SLOT.pack_into(self._memory, slot * _SLOT.size, _NOBODY)

    def fewest(self, connections: int) -> bool:
        """Whether no other process has fewer."""
        counts = enumerate(_SLOT.iter_unpack(self._memory))
        return all(connections <= others for slot, (others,) in counts if slot != self._own)
