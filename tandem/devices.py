"""On which device the embedded stack puts both runtimes: on the GPU if both can compute there, else both on the CPU."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from gateway.settings import Settings
from tandem import environments, stack
from tandem.preflight import Problem
from tandem.processes import Child
from tandem.supervisor import describe

PROBES = {"torch": "torch_worker.gpu", "tf": "tf_worker.gpu"}
FRAMEWORKS = {"torch": "PyTorch", "tf": "TensorFlow"}
PATIENCE_S = 180.0
"""For a framework to be imported and to find its GPUs: the first time, its libraries come from the disk."""
_HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
"""The frameworks see no GPU then, and TorchServe starts no worker for one."""


class Probed(BaseModel):
    """What a framework says of the GPUs."""

    gpus: tuple[str, ...]
    """Their names; none if it cannot compute on one."""
    reason: str


@dataclass(frozen=True)
class Choice:
    device: Literal["cpu", "gpu"]
    said: str
    """One sentence for people: where both run, and why."""
    as_found: bool = True
    """False: the machine has a GPU, and it is not used though nobody said so."""

    def environ(self, settings: Settings) -> dict[str, str]:
        """What the stack's processes are given: the GPUs hidden from both workers or from none, and what the gateway is
        to say of the device where the settings have not."""
        workers = {"TANDEM_TORCH__DEVICE": settings.torch, "TANDEM_TF__DEVICE": settings.tf}
        said = {name: self.device for name, worker in workers.items() if not worker.device}
        return said | (_HIDDEN if self.device == "cpu" else {})


async def choose(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    has_gpu: Callable[[], bool] = environments.has_nvidia_gpu,
    python: Callable[[str], Path] = stack.python,
) -> Choice:
    """Ask both frameworks, if it depends on them. Raises Problem where a GPU is demanded and cannot be used by both."""
    wish = settings.workers.device
    if wish == "cpu":
        return Choice("cpu", "both runtimes run on the CPU, as TANDEM_WORKERS__DEVICE says")
    if not has_gpu():
        if wish == "gpu":
            raise Problem(
                "TANDEM_WORKERS__DEVICE is gpu and there is no NVIDIA GPU here (no /dev/nvidia0, `nvidia-smi -L` lists"
                " none, or TANDEM_GPU is 0): install the driver, or set it to auto or cpu."
            )
        return Choice("cpu", "both runtimes run on the CPU: there is no NVIDIA GPU here")
    found = dict(
        zip(PROBES, await asyncio.gather(*(_probe(python(name), name, environ) for name in PROBES)), strict=True)
    )
    without = {FRAMEWORKS[name]: probed.reason for name, probed in found.items() if not probed.gpus}
    if not without:
        return Choice("gpu", _on_gpus(found["torch"].gpus, found["tf"].gpus))
    why = "; ".join(f"{framework} cannot use the GPU ({reason})" for framework, reason in without.items())
    advice = (
        "check the driver with nvidia-smi, and CUDA's libraries with `python -m"
        f" {' and '.join(PROBES[name] for name, probed in found.items() if not probed.gpus)}` in its environment"
    )
    if wish == "gpu":
        raise Problem(f"TANDEM_WORKERS__DEVICE is gpu and {why}: {advice}, or set it to auto or cpu.")
    return Choice("cpu", f"both runtimes run on the CPU: {why}; {advice}", as_found=False)


def _on_gpus(torch: tuple[str, ...], tf: tuple[str, ...]) -> str:
    if len(torch) == len(tf) == 1:
        return f"both runtimes run on the GPU, {tf[0]}"
    return (
        f"both runtimes run on GPUs: TorchServe on {len(torch)} ({', '.join(torch)}), TensorFlow Serving on the first,"
        f" {tf[0]}; with CUDA_VISIBLE_DEVICES=0 both have one"
    )


async def _probe(python: Path, name: str, environ: Mapping[str, str]) -> Probed:
    """Ask a framework in a process of its own: it may hang or crash, and it holds memory of the GPU."""
    with tempfile.TemporaryFile() as said:
        try:
            child = await Child.start([python, "-m", PROBES[name]], log=said.fileno(), cwd=stack.ROOT, env=environ)
        except OSError as error:
            return Probed(gpus=(), reason=f"{python} cannot be started: {error.strerror}")
        code = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    code = await child.wait()
        finally:
            await child.stop(grace_s=0)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    with suppress(ValidationError, StopIteration):
        if code == 0:
            return Probed.model_validate_json(next(line for line in reversed(lines) if line.startswith("{")))
    how = f"no answer in {PATIENCE_S:.0f} s" if code is None else f"its trial {describe(code)}"
    return Probed(gpus=(), reason=": ".join([how, *lines[-1:]]))
