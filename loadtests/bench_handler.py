"""Ways to have all CPUs of this machine compute with one TorchScript module: why the torch worker is set up as it is.

`.venv-torch/bin/python -m loadtests.bench_handler var/store/digits/1`
No server: docs/adr/0029 draws the conclusion. Run it when nothing else computes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import yaml

from torch_worker import tuning

BATCH = 8
_SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}
_AS_SERVED = {**tuning.KEPT_MEMORY, **tuning.SHORT_SPIN}
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "all threads, sleeping": ("threads", _SLEEPING),
    "a process for each CPU": ("processes", _SLEEPING),
    "a batch split over threads": ("split", tuning.SHORT_SPIN),
    "all threads, as the worker": ("threads", _AS_SERVED),
}


def seconds_of(run: Callable[[], object], for_s: float) -> float:
    """The median time of a run, warmed up."""
    for _ in range(4):
        run()
    taken: list[float] = []
    end_s = time.perf_counter() + for_s
    while time.perf_counter() < end_s:
        begin_s = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin_s)
    return statistics.median(taken)


def measure(package: Path, way: str, for_s: float) -> None:
    """Prints the median seconds of a batch and of one picture."""
    size = yaml.safe_load((package / "model.yaml").read_text())["input"]
    images = torch.randint(0, 256, (BATCH, size["height"], size["width"], 3), dtype=torch.uint8)
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    module = torch.jit.load(str(package / "torch" / "model.pt"), map_location="cpu").eval()
    threads = 1 if way == "processes" else tuning.available_cpus()
    torch.set_num_threads(threads)

    def run(rows: torch.Tensor) -> object:
        with torch.inference_mode():
            return module(rows)

    one_s = seconds_of(lambda: run(images[:1]), for_s)
    if way == "split":
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            parts = images.tensor_split(threads)
            batch_s = seconds_of(lambda: list(pool.map(run, parts)), for_s)
    else:
        batch_s = seconds_of(lambda: run(images), for_s)
    sys.stdout.write(f"{batch_s} {one_s}\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_handler", description=__doc__)
    parser.add_argument("package", type=Path, nargs="+", help="a package folder, <store>/<name>/<version>")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
    parser.add_argument("--way", choices=sorted({way for way, _ in WAYS.values()}), help="one way, in this process")
    given = parser.parse_args()
    if given.way:
        measure(given.package[0], given.way, given.seconds)
        return
    for package in given.package:
        sys.stdout.write(f"{package}\n{'':28}  batch {BATCH}, pictures/s  1 picture, ms\n")
        for name, (way, variables) in WAYS.items():
            count = tuning.available_cpus() if way == "processes" else 1
            command = [sys.executable, "-m", "loadtests.bench_handler", str(package), f"--way={way}"]
            command.append(f"--seconds={given.seconds}")
            children = [
                subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True)
                for _ in range(count)
            ]
            figures = [tuple(map(float, child.communicate()[0].split())) for child in children]
            rate = sum(BATCH / batch_s for batch_s, _ in figures)
            sys.stdout.write(f"{name:28}  {rate:19.1f}  {statistics.mean(one for _, one in figures) * 1000:13.1f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
