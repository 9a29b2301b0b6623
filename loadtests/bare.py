"""The loop around an artifact without a server, in the runtime's own environment: bare_torch.py and bare_tf.py.

The process loads the artifact and says `ready`. For each line `<batch> <seconds>` of its standard input it runs random
pictures in batches of that size, one after the other, and answers with a line of JSON: pictures, elapsed_s, p50_ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Run = Callable[[npt.NDArray[Any]], object]
WARM_UP_RUNS = 5


def main(load: Callable[[Path, int], Run]) -> None:
    """`load` makes of an artifact and a number of threads what runs a batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True, help="the runtime's folder of a model package")
    parser.add_argument("--size", type=int, nargs=2, required=True, help="height and width of the input")
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    run = load(given.artifact, given.threads)
    random = np.random.default_rng(0)
    pictures: dict[int, npt.NDArray[Any]] = {}
    _say("ready")
    for line in sys.stdin:
        batch, seconds = line.split()
        images = pictures.get(int(batch))
        if images is None:
            images = random.integers(0, 256, (int(batch), *given.size, 3), dtype=np.uint8)
            pictures[int(batch)] = images
            for _ in range(WARM_UP_RUNS):
                run(images)
        _say(json.dumps(_measure(run, images, float(seconds))))


def _measure(run: Run, images: npt.NDArray[Any], seconds: float) -> dict[str, float]:
    taken_s = []
    start_s = time.perf_counter()
    while (begin_s := time.perf_counter()) < start_s + seconds:
        run(images)
        taken_s.append(time.perf_counter() - begin_s)
    elapsed_s = time.perf_counter() - start_s
    return {
        "pictures": len(images) * len(taken_s),
        "elapsed_s": elapsed_s,
        "p50_ms": statistics.median(taken_s) * 1000,
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
