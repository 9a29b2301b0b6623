"""What the supervisor tells each of the gateway's processes: which one it is, and what it shares with the others."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client import values

from gateway.server.board import Board

_VARIABLE = "TANDEM_GATEWAY_PLACE"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the library's own


@dataclass(frozen=True)
class Place:
    slot: int
    """From 0. A process that is started anew gets that of the one it replaces."""
    slots: int
    listening: int
    """Descriptor of the socket."""
    board: int
    """Descriptor of the board's file."""
    supervisor: int
    """Descriptor of a pipe whose other end is closed when the supervisor ends, however it does."""
    metrics: str
    """Folder of the metrics' files."""

    @classmethod
    def of_this_process(cls) -> Place | None:
        """None where nobody else serves with it."""
        # Taken away: it is not meant for the processes that this one starts.
        told = os.environ.pop(_VARIABLE, None)
        return None if told is None else cls(**json.loads(told))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self.listening, self.board, self.supervisor

    def environment(self) -> dict[str, str]:
        return {_VARIABLE: json.dumps(asdict(self)), _METRICS_VARIABLE: self.metrics}

    def open(self) -> tuple[socket.socket, Board]:
        listening = socket.socket(fileno=self.listening)
        for descriptor in self.descriptors:
            os.set_inheritable(descriptor, False)
        return listening, Board(self.board, self.slots, self.slot)

    def share_metrics(self) -> None:
        """Keep metrics where the other processes read them. Before the first one is made.

        The files are named by the slot: counters go on where a process that died left them, and no file is left over.
        """
        values.ValueClass = values.MultiProcessValue(lambda: self.slot)  # type: ignore[no-untyped-call]


def forget_live_gauges(metrics: Path, slot: int) -> None:
    """What the process there had in flight when it died is in flight no more."""
    for file in metrics.glob(f"gauge_live*_{slot}.db"):
        file.unlink(missing_ok=True)
