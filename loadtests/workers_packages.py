"""The models of `make bench-workers`: torchvision's architectures with random weights, added as a user would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from gateway.settings import Settings
from modelkit import add, package, serving
from modelkit import store as stored
from modelkit.batching import Batching
from modelkit.bundled import BUNDLED
from modelkit.recipe import DetectorRecipe, Recipe
from modelkit.request import AddRequest
from modelkit.spec import ModelSpec, Precision

MODELS = {"resnet50": "torchvision:resnet50", "mobilenetv2": "torchvision:mobilenet_v2"}
"""Sources by name, in the order of the measurements."""
VERSIONS: dict[Precision, int] = {"fp32": 1, "bf16": 2, "fp16": 3}


def packages(settings: Settings, names: Sequence[str], precision: Precision, console: Console) -> list[ModelSpec]:
    """Their packages, made if they are not there, in store and serving view of these settings."""
    store, view, say = settings.store, settings.serving, _say(console)
    store.mkdir(parents=True, exist_ok=True)
    serving.update_batching(Batching.of(settings), view)
    version = VERSIONS[precision]
    made = []
    for name in names:
        folder = store / name / str(version)
        if not folder.exists():
            request = AddRequest(
                source=MODELS[name],
                name=name,
                version=version,
                precision=precision,
                weights="none",
                labels="numbers",
                allow_mismatch=True,
            )
            add.add(request, store, view, say)
        made.append(stored.read(folder))
        serving.update_torch(made[-1], folder, view, say)  # with the present handler
    return made


def smallest(settings: Settings, console: Console) -> ModelSpec:
    """The bundled digits in store and serving view: what a request of it costs is the server's own work."""
    (recipe,) = (each for each in BUNDLED if each.name == "digits")
    made = _built(recipe, settings.store, "fp32", console)
    folder = settings.store / made.name / str(made.version)
    serving.update_torch(made, folder, settings.serving, _say(console))
    serving.update_tf(made, folder, settings.serving, _say(console))
    serving.update_models_config(settings.serving)
    return made


def proven(settings: Settings, precision: Precision, console: Console) -> list[ModelSpec]:
    """The bundled models, which are trained, in that precision: what their proofs say of it means something."""
    return [_built(recipe, settings.var / "proofs" / precision, precision, console) for recipe in BUNDLED]


def _built(recipe: Recipe | DetectorRecipe, store: Path, precision: Precision, console: Console) -> ModelSpec:
    folder = store / recipe.name / str(recipe.version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not package.is_current(recipe, folder, precision):
        package.build(recipe, folder, _say(console), precision)
    return stored.read(folder)


def _say(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(f"[dim]{line}")
