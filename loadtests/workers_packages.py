"""The models of `make bench-workers`: torchvision's architectures with random weights, added as a user would."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from gateway.settings import Settings
from modelkit import add, serving
from modelkit import store as stored
from modelkit.batching import Batching
from modelkit.request import AddRequest
from modelkit.spec import ModelSpec

MODELS = {"resnet50": "torchvision:resnet50", "mobilenetv2": "torchvision:mobilenet_v2"}
"""Sources by name, in the order of the measurements."""


def packages(settings: Settings, names: Sequence[str], console: Console) -> list[ModelSpec]:
    """Their packages, made if they are not there, in store and serving view of these settings."""

    def say(line: str) -> None:
        console.print(f"[dim]{line}")

    store, view = settings.store, settings.serving
    store.mkdir(parents=True, exist_ok=True)
    serving.update_batching(Batching.of(settings), view)
    for name in names:
        if name not in stored.models(store):
            request = AddRequest(source=MODELS[name], name=name, weights="none", labels="numbers", allow_mismatch=True)
            add.add(request, store, view, say)
        serving.update_torch(stored.read(store / name / "1"), store / name / "1", view, say)  # with the present handler
    return [stored.read(store / name / "1") for name in names]
