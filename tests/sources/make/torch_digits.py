"""A user's PyTorch network, trained on the scans of scikit-learn for a minute, in every form that it can be handed over
in. In `.venv-convert`: `python torch_digits.py SCANS.npz FOLDER`.

my_models.py is what a user would have: a module with a function that builds the network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


def build() -> nn.Module:
    """A small network with a Flatten, whose weights are in the order that channels-first gives them."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, stride=2, padding=1, groups=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(24 * 36, 10),
    )


class Pictures(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """The network as a user would put it into a pair: pictures in, scores out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = image.permute(0, 3, 1, 2).float() / 255
        return {"scores": self.network((x - 0.5) / 0.25).softmax(1)}


def main(scans: str, folder: str) -> None:
    target = Path(folder)
    with np.load(scans) as data:
        pictures, labels = torch.from_numpy(data["pictures"]), torch.from_numpy(data["labels"]).long()
    x = (pictures.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    torch.manual_seed(3)
    model = build()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(12):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimiser.step()
    model.eval()
    print("accuracy", float((model(x).argmax(1) == labels).float().mean()))  # noqa: T201
    np.savez(target / "digits.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    image = torch.rand(2, 3, 24, 24)
    torch.save(model.state_dict(), target / "digits.pt")
    from safetensors.torch import save_file

    save_file(model.state_dict(), target / "digits.safetensors")
    torch.jit.trace(model, image).save(str(target / "digits.torchscript"))
    batch = torch.export.Dim("batch", min=1, max=256)
    torch.export.save(torch.export.export(model, (image,), dynamic_shapes=({0: batch},)), target / "digits.pt2")
    # As most files are: with the batch that they were exported with.
    torch.onnx.export(model, (image[:1],), str(target / "digits.onnx"), dynamo=False, opset_version=17)
    torch.jit.trace(Pictures(model), torch.zeros(2, 24, 24, 3, dtype=torch.uint8), strict=False).save(
        str(target / "pair.torchscript")
    )
    (target / "my_models.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(\n"
        "        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),\n"
        "        nn.Conv2d(16, 24, 3, stride=2, padding=1, groups=2), nn.SiLU(), nn.Flatten(), nn.Linear(24 *"
        " 36, 10),\n"
        "    )\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
