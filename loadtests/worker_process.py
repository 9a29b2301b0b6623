"""One worker of the stack by itself, started as `tandem up` starts it, and asked over gRPC as the gateway asks it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import psutil

from gateway.deadline import Deadline
from gateway.images.preprocess import ImageTensor
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import Settings
from loadtests.closed_loop import Call
from modelkit.spec import ModelSpec, RuntimeName
from tandem import stack
from tandem.processes import tail
from tandem.supervisor import Service

START_S = 180.0
TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Worker:
    runtime: Runtime
    process: psutil.Process

    def caller(self, spec: ModelSpec) -> Call:
        """Asks about one random picture again and again."""
        model, image = ModelRef.of(spec), random_picture(spec)

        async def call() -> None:
            await self.runtime.infer(model, image, deadline=Deadline.after_ms(TIMEOUT_MS))

        return call

    def resident_bytes(self) -> int:
        """Memory of the process and its children that no other process shares."""
        return sum(each.memory_full_info().uss for each in (self.process, *self.process.children(recursive=True)))


def random_picture(spec: ModelSpec) -> ImageTensor:
    shape = (1, spec.input.height, spec.input.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@asynccontextmanager
async def worker(name: RuntimeName, settings: Settings, *specs: ModelSpec) -> AsyncIterator[Worker]:
    """The worker of these settings, once it is ready for every one of the models; ended with the block.

    Raises RuntimeError, with the end of its log, for one that does not become ready.
    """
    (service,) = (each for each in stack.services(settings, os.environ) if each.name == name)
    service.log.parent.mkdir(parents=True, exist_ok=True)
    with service.log.open("wb") as log:
        process = psutil.Popen(
            service.command, cwd=service.cwd, env=dict(service.env), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    runtime: Runtime = (
        TorchRuntime(settings.torch) if name == "torch" else TfRuntime(settings.tf, settings.serving / "tf")
    )
    try:
        async with asyncio.timeout(START_S):
            await _until_ready(runtime, process, service, specs)
        yield Worker(runtime, process)
    finally:
        await runtime.close()
        process.terminate()
        await asyncio.to_thread(process.wait, 60)


async def _until_ready(
    runtime: Runtime, process: psutil.Process, service: Service, specs: tuple[ModelSpec, ...]
) -> None:
    for spec in specs:
        while (status := await runtime.status(ModelRef.of(spec), deadline=Deadline.after_ms(5_000))).state != "ready":
            if status.state == "failed" or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError(f"{service.name}: {status.reason}\n{tail(service.log)}")
            await asyncio.sleep(0.2)
