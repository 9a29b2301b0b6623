"""The one place that tells the runtimes apart."""

from __future__ import annotations

from gateway.runtimes.base import Runtime
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import Settings
from modelkit.spec import RuntimeName


def open_runtimes(settings: Settings) -> dict[RuntimeName, Runtime]:
    """Both runtimes, by name. Call it where an event loop runs."""
    return {"torch": TorchRuntime(settings.torch), "tf": TfRuntime(settings.tf, settings.serving / "tf")}
