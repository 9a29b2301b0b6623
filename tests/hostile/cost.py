"""What a request cost the gateway's process: its own time on the processor, and the most memory that it held."""

from __future__ import annotations

from pathlib import Path

import psutil


def processor_s(process: psutil.Process) -> float:
    """Seconds that it has used: not the clock's, so that a busy machine fails no test."""
    times = process.cpu_times()
    return times.user + times.system


def peak(process: psutil.Process) -> int:
    """Bytes of its largest resident set since the last `forget_peak`."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
