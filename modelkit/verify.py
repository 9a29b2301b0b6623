"""The proof of a model, repeated against the running workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from gateway.deadline import Deadline
from gateway.errors import RuntimeFault
from gateway.images.preprocess import ImageTensor, preprocess
from gateway.metrics import Metrics
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.opening import open_runtimes
from gateway.settings import Settings
from modelkit import parity, samples
from modelkit.predictions import Outputs
from modelkit.spec import ModelSpec, ParityRecord, RuntimeName

_AT_ONCE = 4
_TIMEOUT_MS = 60_000


class CannotVerify(Exception):
    """The workers did not answer. The message says which, and why."""


async def against_workers(made: ModelSpec, settings: Settings, pictures: Path | None = None) -> ParityRecord:
    """`verify` against the workers of these settings."""
    runtimes = open_runtimes(settings, Metrics(CollectorRegistry()), {ModelRef.of(made): made}.get)
    try:
        return await verify(made, runtimes, pictures)
    finally:
        for runtime in runtimes.values():
            await runtime.close()


async def verify(
    made: ModelSpec, runtimes: Mapping[RuntimeName, Runtime], pictures: Path | None = None
) -> ParityRecord:
    """What both workers answer about the proof's pictures, compared as at the time of the add; how they agree with
    themselves in 32 bits is what was found then.

    Raises CannotVerify, NoSamples, ParityFailure.
    """
    names, images = samples.pictures(pictures)
    tensors = [preprocess(image, made.input) for image in images]
    answers = {name: await _answers(made, runtime, tensors) for name, runtime in runtimes.items()}
    found = parity.compare(made, answers, names)
    return found.model_copy(update={"against_fp32": made.proof.against_fp32})


async def _answers(made: ModelSpec, runtime: Runtime, tensors: list[ImageTensor]) -> Outputs:
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(tensor: ImageTensor) -> Outputs:
        async with places:
            output = await runtime.infer(ModelRef.of(made), tensor, deadline=Deadline.after_ms(_TIMEOUT_MS))
            return output.tensors

    try:
        found = await asyncio.gather(*map(ask, tensors))
    except RuntimeFault as error:
        raise CannotVerify(f"{runtime.name}: {error}") from error
    return {name: np.concatenate([each[name] for each in found]) for name in made.outputs}
