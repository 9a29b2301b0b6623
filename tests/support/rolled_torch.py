"""The digits graph with every class moved up by one: `python -m tests.support.rolled_torch FROM TO` in .venv-torch."""

from __future__ import annotations

import sys

import torch


class Rolled(torch.nn.Module):  # type: ignore[misc]  # torch is in another environment
    def __init__(self, digits: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.digits = digits

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": torch.roll(self.digits(image)["scores"], 1, 1)}


if __name__ == "__main__":
    example = torch.zeros((3, 32, 32, 3), dtype=torch.uint8)
    torch.jit.trace(Rolled(torch.jit.load(sys.argv[1])), example, strict=False).save(sys.argv[2])
