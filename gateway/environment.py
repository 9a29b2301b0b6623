"""What is known of two targets besides their requests: what a comparison's reader must know to judge it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from evidence.document import Target, target_names
from gateway.catalogue import Catalogue
from gateway.errors import ModelNotFound
from gateway.settings import Settings
from modelkit.spec import ModelSpec


class Environment:
    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue

    def of(self, model: str, a: Target, b: Target) -> Mapping[str, Any]:
        """`devices` and `precision` by target: empty where they are not known."""
        targets = dict(zip(target_names(a, b), (a, b), strict=True))
        specs = {name: self._spec(model, target) for name, target in targets.items()}
        workers = {"torch": self._settings.torch, "tf": self._settings.tf}
        return {
            "devices": {name: workers[target.runtime].device for name, target in targets.items()},
            "precision": {name: spec.precision if spec else "" for name, spec in specs.items()},
            "artifacts": {
                name: spec.artifacts[targets[name].runtime].form
                for name, spec in specs.items()
                if spec and targets[name].runtime in spec.artifacts
            },
            "settings": {
                **{f"{name}.max_inflight": each.max_inflight for name, each in workers.items()},
                "torch.workers": self._settings.torch.workers,
                **{
                    f"workers.{name}": value
                    for name, value in self._settings.workers
                    if name not in ("precision", "device")
                },
                "shadow.max_inflight": self._settings.shadow.max_inflight,
                "warm_up_requests": self._settings.warm_up_requests,
            },
            "gateway": _machine(),
        }

    def _spec(self, model: str, target: Target) -> ModelSpec | None:
        """None where the store does not hold it any more."""
        try:
            return self._catalogue.find(model, target.version)
        except ModelNotFound:
            return None


@cache
def _machine() -> Mapping[str, Any]:
    """This process' machine: the workers may be on others."""
    return {
        "tandem": version("tandem-serving"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
