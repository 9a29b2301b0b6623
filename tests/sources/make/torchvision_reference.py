"""Scores by torchvision's own preprocessing and PyTorch: `python torchvision_reference.py resnet50.pt PICTURE…`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from modelkit.sources.torch_model import import_torchvision


def main(weights: str, *pictures: str) -> None:
    models = import_torchvision().models
    state = torch.load(weights, weights_only=True)
    model = models.resnet50(weights=None, num_classes=len(state["fc.bias"]))
    model.load_state_dict(state)
    preset = models.ResNet50_Weights.DEFAULT.transforms()
    with torch.inference_mode():
        batch = torch.stack([preset(Image.open(path).convert("RGB")) for path in pictures])
        print(json.dumps(model.eval()(batch).softmax(1).tolist()))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
