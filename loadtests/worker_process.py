"""One worker of the stack by itself, started as `tandem up` starts it, and asked over gRPC what the gateway asks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import numpy as np
import psutil

from gateway.deadline import Deadline
from gateway.images.preprocess import ImageTensor
from gateway.runtimes import tf, torch
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.channel import open_channel
from gateway.settings import Settings
from loadtests.closed_loop import Call
from modelkit.spec import ModelSpec, RuntimeName
from proto import methods
from tandem import stack
from tandem.processes import tail
from tandem.supervisor import Service

START_S = 180.0
TIMEOUT_MS = 60_000
LONE_PICTURES = 100


@dataclass(frozen=True)
class Worker:
    runtime: Runtime
    process: psutil.Process
    channel: grpc.aio.Channel

    async def caller(self, spec: ModelSpec) -> Call:
        """Asks about one random picture again and again.

        The request is made once, and the answers are not read: the worker is measured, on the cores that it shares with
        this process. A first answer is read. Raises RuntimeFault, or later AioRpcError or RuntimeError, for a failure.
        """
        model, image = ModelRef.of(spec), random_picture(spec)
        await self.runtime.infer(model, image, deadline=Deadline.after_ms(TIMEOUT_MS))
        if self.runtime.name == "torch":
            path = methods.PREDICTIONS.path
            message = torch.to_request(model, image, sent_ns=time.time_ns()).SerializeToString()
        else:
            path, message = methods.PREDICT.path, tf.to_request(model, image).SerializeToString()
        ask = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        expected = len(await ask(message, timeout=TIMEOUT_MS / 1000))

        async def call() -> None:
            answer = await ask(message, timeout=TIMEOUT_MS / 1000)
            if len(answer) < expected / 2:  # TorchServe's answer to a picture that failed has no tensors
                raise RuntimeError(f"{self.runtime.name} answered {answer!r}")

        return call

    async def lone_parts(self, spec: ModelSpec) -> tuple[float, float, float] | None:
        """Medians of a lone picture's milliseconds until it is computed, while, and after, where the worker says them.

        The way through the gateway's client counts to the first and the last.
        """
        model, image = ModelRef.of(spec), random_picture(spec)
        parts = []
        for _ in range(LONE_PICTURES):
            begin_s = time.perf_counter()
            output = await self.runtime.infer(model, image, deadline=Deadline.after_ms(TIMEOUT_MS))
            took_s = time.perf_counter() - begin_s
            if output.queue_s is None or output.inference_s is None:
                return None
            parts.append((output.queue_s, output.inference_s, took_s - output.queue_s - output.inference_s))
        before, during, after = np.median(parts, axis=0) * 1000
        return float(before), float(during), float(after)

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
        torch.TorchRuntime(settings.torch) if name == "torch" else tf.TfRuntime(settings.tf, settings.serving / "tf")
    )
    channel = open_channel(settings.torch.address if name == "torch" else settings.tf.address)
    try:
        async with asyncio.timeout(START_S):
            await _until_ready(runtime, process, service, specs)
        yield Worker(runtime, process, channel)
    finally:
        await channel.close(grace=None)
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
