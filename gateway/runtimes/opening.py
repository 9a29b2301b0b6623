"""The one place that tells the runtimes apart."""

from __future__ import annotations

from gateway.metrics import Metrics
from gateway.runtimes.base import Runtime
from gateway.runtimes.replicas import Replicas
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import Settings
from modelkit.spec import RuntimeName


def open_runtimes(settings: Settings, metrics: Metrics) -> dict[RuntimeName, Runtime]:
    """Both runtimes, by name. Call it where an event loop runs."""
    requests = settings.warm_up_requests

    def torch(host: str) -> Runtime:
        return TorchRuntime(settings.torch.at(host))

    def tf(host: str) -> Runtime:
        return TfRuntime(settings.tf.at(host), settings.serving / "tf")

    return {
        "torch": Replicas("torch", settings.torch.host, torch, warm_up_requests=requests, metrics=metrics),
        "tf": Replicas("tf", settings.tf.host, tf, warm_up_requests=requests, metrics=metrics),
    }
