"""Weights of torchvision's resnet50 that tell pictures apart: its batch normalisations calibrated on the pictures, its
last layer set to their directions. In `.venv-convert`: `python resnet.py PICTURES.npy resnet50.pt`.

Random weights answer nearly every picture alike, and agreement about that proves nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from modelkit.sources.torch_model import import_torchvision

CLASSES = 40


def main(pictures: str, target: str) -> None:
    x = torch.from_numpy(np.load(pictures)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    torch.manual_seed(0)
    model = import_torchvision().models.resnet50(weights=None, num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all that is seen
            module.reset_running_stats()
    with torch.no_grad():
        model.train()
        for batch in x.split(25):
            model(batch)
        model.eval()
        head, model.fc = model.fc, torch.nn.Identity()
        features = torch.cat([model(batch) for batch in x.split(25)])
        centred = features - features.mean(0)
        # Each class looks for the direction of one picture, measured in units of how far all of them spread.
        _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
        kept = directions[:60] / spread[:60, None]
        chosen = torch.randperm(len(x))[:CLASSES]
        prototypes = centred[chosen] @ kept.T
        head.weight.copy_(prototypes / prototypes.norm(dim=1, keepdim=True) @ kept * 20)
        head.bias.copy_(-head.weight @ features.mean(0))
    model.fc = head
    torch.save(model.state_dict(), target)


if __name__ == "__main__":
    main(*sys.argv[1:])
