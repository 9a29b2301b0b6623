"""A TorchScript form, compiled for the processor here by AOTInductor. Runs in the torch worker's environment."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from modelkit.replayed import NotReplayable, Replayed

MOST_PICTURES = 1024
"""Largest batch that a compiled form takes: what a worker can be asked for."""


class NotCompilable(Exception):
    """There is no compiled form. The message says why, and what to do."""


def check() -> None:
    """Raises NotCompilable where there is no C++ compiler."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, RuntimeError) as error:
        raise NotCompilable(
            "--compile needs a C++ compiler, and there is none: install g++ (or name one with CXX), or leave --compile"
            " out."
        ) from error


def exported(script: torch.jit.ScriptModule, image: torch.Tensor) -> torch.export.ExportedProgram:
    """The program of the frozen TorchScript `script`, batch free. Raises NotReplayable and what torch.export raises."""
    batch = torch.export.Dim("batch", min=1, max=MOST_PICTURES)
    return torch.export.export(Replayed(script), (image,), dynamic_shapes={"image": {0: batch}}, strict=False)


def compile(script: torch.jit.ScriptModule, image: torch.Tensor, package: Path) -> None:  # noqa: A001
    """Write the frozen TorchScript `script`, for pictures like `image`, to the file `package` (.pt2); batch free.

    Raises NotCompilable.
    """
    try:
        program = exported(script, image)
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
    except NotReplayable as error:
        raise NotCompilable(f"The network cannot be compiled: {error}. Leave --compile out.") from error
    except Exception as error:  # torch.export's and the compilers' own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NotCompilable(
            f"The network cannot be compiled: {type(error).__name__}: {lines[0] if lines else ''} Leave --compile out."
        ) from error


def here() -> str:
    """What a compiled form runs with."""
    return f"PyTorch {torch.__version__}, {platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
