"""A bare loop (bare.py) in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from modelkit.spec import ModelSpec, RuntimeName
from tests.support.stack import ROOT
from torch_worker import tuning


@dataclass(frozen=True)
class BareFigures:
    images_per_s: float
    p50_ms: float
    """Of a batch."""


class BareProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def measure(self, batch: int, seconds: float) -> BareFigures:
        assert self._process.stdin is not None  # noqa: S101  (made with a pipe)
        self._process.stdin.write(f"{batch} {seconds}\n".encode())
        found = json.loads(await self._line())
        return BareFigures(found["pictures"] / found["elapsed_s"], found["p50_ms"])

    async def _line(self) -> bytes:
        """Raises RuntimeError if the process has ended."""
        assert self._process.stdout is not None  # noqa: S101
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the bare loop ended with {await self._process.wait()}; its error is above")
        return line

    async def wait_until_ready(self) -> None:
        await self._line()


@asynccontextmanager
async def bare_process(
    runtime: RuntimeName, package: Path, spec: ModelSpec, threads: int
) -> AsyncIterator[BareProcess]:
    """A loop over the package's artifact of `runtime`, with so many threads and a worker's environment; ended with the
    block."""
    environment = (
        os.environ
        | tuning.KEPT_MEMORY
        | tuning.SHORT_SPIN
        | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    )
    process = await asyncio.create_subprocess_exec(
        str(ROOT / f".venv-{runtime}/bin/python"),
        *("-m", f"loadtests.bare_{runtime}"),
        *("--artifact", str(package / runtime)),
        *("--size", str(spec.input.height), str(spec.input.width)),
        *("--threads", str(threads)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if runtime == "tf" else None,  # notes on every import
        cwd=ROOT,
        env=environment,
    )
    try:
        bare = BareProcess(process)
        await bare.wait_until_ready()
        yield bare
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def together(processes: Sequence[BareProcess], batch: int, seconds: float) -> float:
    """Images a second of all of them at once."""
    found = await asyncio.gather(*(each.measure(batch, seconds) for each in processes))
    return sum(each.images_per_s for each in found)
