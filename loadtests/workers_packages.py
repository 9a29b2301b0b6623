"""The models of `make bench-workers`: torchvision's architectures with random weights, added as a user would."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from gateway.settings import Settings
from modelkit import add, spec
from modelkit import store as stored
from modelkit.request import AddRequest
from modelkit.spec import ModelSpec

MODELS = {"resnet50": "torchvision:resnet50", "mobilenetv2": "torchvision:mobilenet_v2"}
"""Sources by name, in the order of the measurements."""


def packages(settings: Settings, names: Sequence[str], console: Console) -> list[ModelSpec]:
    """Their packages, made if they are not there, in store and serving view of these settings."""
    settings.store.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in stored.models(settings.store):
            request = AddRequest(source=MODELS[name], name=name, weights="none", labels="numbers", allow_mismatch=True)
            add.add(request, settings.store, settings.serving, lambda line: console.print(f"[dim]{line}"))
    return [spec.read(settings.store / name / "1") for name in names]
