"""What a worker computes with: CPUs, and what its C libraries are told by environment variables.

Both runtimes are given the same where it is of use to both. Standard library only: the exports, which time forms as a
worker runs them, and the embedded stack read it too. ADR 29 has the figures.
"""

from __future__ import annotations

import os
from pathlib import Path

KEPT_MEMORY = {name: str(1 << 30) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
"""glibc gives blocks of over 32 MB back at once and takes them anew, zeroed page by page, at every layer of a batch.
A worker keeps its memory: the next batch needs it again."""
SHORT_SPIN = {"GOMP_SPINCOUNT": "10000"}
"""How often a thread of OpenMP looks whether the others are done before it sleeps: below a millisecond.

Threads meet some hundred times in a run. To sleep at each takes as long as the work between; to spin until the others
come, libgomp's default, keeps the JVM and the other workers from running."""


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that processes started here may use: the affinity, and in a container the quota."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup.read_text().split()
        return max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup of the second version, or "max": no quota
        return cpus
