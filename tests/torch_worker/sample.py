"""A small model with which failures can be had, as a package folder. Its pictures are 8 × 8."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml

GOOD = bytes(range(192))
BAD_FOR_THE_MODEL = b"\xff" * 192
SPEC = {
    "name": "mean",
    "version": 1,
    "input": {"height": 8, "width": 8},
    "outputs": {"scores": {"dtype": "float32", "shape": [8], "meaning": "softmax"}},
}

Forward = Callable[[Any], Any]


class MakePackage(Protocol):
    def __call__(self, model: Forward | bytes = ..., **changes: object) -> Path: ...


def mean(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean brightness of each row; raises for a picture that begins with four bytes of 255."""
    x = image.to(torch.float32)
    if bool((x.flatten(1)[:, :4].sum(1) == 4 * 255).any()):
        raise RuntimeError("too bright")
    return {"scores": x.mean([2, 3])}


def endless(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Like `mean`, but computes for ever where that raises."""
    x = image.to(torch.float32)
    while bool((x.flatten(1)[:, :4].sum(1) == 4 * 255).any()):
        x = image.to(torch.float32)
    return {"scores": x.mean([2, 3])}


def wrong_name(image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"logits": image.to(torch.float32).mean([2, 3])}


def no_names(image: torch.Tensor) -> torch.Tensor:
    return image.to(torch.float32).mean([2, 3])


def batch_of_one(image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"scores": image.to(torch.float32).reshape(1, 8, 24).mean(2)}


class Compilable(torch.nn.Module):  # type: ignore[misc]
    """The mean brightness of each row."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": image.to(torch.float32).mean([2, 3])}


def compile_package(package: Path) -> None:
    """Put an AOTInductor package in the place of the folder's TorchScript module. Needs a C++ compiler."""
    from torch._inductor import aoti_compile_and_package

    batch = torch.export.Dim("batch", min=1, max=64)
    image = torch.zeros((2, 8, 8, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the compiler uses what PyTorch itself has deprecated
        program = torch.export.export(Compilable().eval(), (image,), dynamic_shapes=({0: batch},))
        aoti_compile_and_package(program, package_path=str(package / "torch" / "model.pt2"))
    (package / "torch" / "model.pt").unlink()


def write_package(package: Path, model: Forward | bytes = mean, **changes: object) -> Path:
    """Write a package folder. `model` is a function for TorchScript, or the bytes of `model.pt`; `changes` are
    fields of `model.yaml`."""
    (package / "torch").mkdir()
    (package / "model.yaml").write_text(yaml.safe_dump(SPEC | changes))
    if isinstance(model, bytes):
        (package / "torch" / "model.pt").write_bytes(model)
    else:
        torch.jit.script(model).save(str(package / "torch" / "model.pt"))
    return package
