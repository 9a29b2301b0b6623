"""The one place that tells the runtimes apart."""

from __future__ import annotations

from gateway.metrics import Metrics
from gateway.runtimes import tls
from gateway.runtimes.addresses import Addresses
from gateway.runtimes.base import Runtime
from gateway.runtimes.promise import SpecOf
from gateway.runtimes.replicas import Replicas
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import Settings, TfSettings, TorchSettings
from modelkit.spec import RuntimeName


def open_runtimes(settings: Settings, metrics: Metrics, spec_of: SpecOf) -> dict[RuntimeName, Runtime]:
    """Both runtimes, by name. Call it where an event loop runs."""
    requests = settings.warm_up_requests

    def torch(worker: TorchSettings) -> Runtime:
        return TorchRuntime(worker, tls.read("torch", worker))

    def tf(worker: TfSettings) -> Runtime:
        return TfRuntime(worker, settings.serving / "tf", tls.read("tf", worker))

    return {
        "torch": Replicas(
            "torch",
            Addresses(settings.torch),
            torch,
            spec_of=spec_of,
            warm_up_requests=requests,
            metrics=metrics,
        ),
        "tf": Replicas("tf", Addresses(settings.tf), tf, spec_of=spec_of, warm_up_requests=requests, metrics=metrics),
    }
