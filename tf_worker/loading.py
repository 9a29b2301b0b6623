"""A version's folder made into something that can be asked: loaded, its batching settled, and warmed up."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_worker import batching_parameters, warm_up
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError, StartError
from tf_worker.metrics import Metrics
from tf_worker.runner import Runner
from tf_worker.servable import Servable

log = logging.getLogger(__name__)

BATCHING_FILE = "batching_params.pbtxt"
"""In a version's folder: its own parameters, with --enable_per_model_batching_parameters."""
WARM_UP_BUDGET_S = 10.0
"""Longest warm-up with zeros, in seconds; the run under way when it ends is finished."""


@dataclass(frozen=True)
class Loader:
    tags: tuple[str, ...]
    """Of the metagraph to load."""
    session_config: Any
    """A `ConfigProto`."""
    batching: BatchingParameters | None
    """How requests are joined; None: not at all."""
    per_model_batching: bool
    """Whether each version's folder says that instead; without a file its requests are not joined."""
    runner: Runner
    """Runs the warm-up's records, as it will run the requests."""
    warm_up: bool
    warm_up_iterations: int
    metrics: Metrics

    def load(self, name: str, version: int, path: Path) -> Servable:
        """Raises ServingError with the reason. Takes as long as the model and its warm-up take."""
        started_s = time.monotonic()
        success = False
        try:
            servable = Servable.load(path, self.tags, self.session_config, self.metrics)
            success = True
        finally:
            loaded_s = time.monotonic()
            self.metrics.loaded(str(path), success=success, duration_s=loaded_s - started_s)
        try:
            batching = self._batching_of(path)
            servable.set_batching(batching)
            if self.warm_up:
                self._warm_up(path, servable, batching)
        except Exception:
            servable.close()
            raise
        log.info(
            "%s %d: loaded in %.1f s, warm in %.1f s", name, version, loaded_s - started_s, time.monotonic() - loaded_s
        )
        return servable

    def _batching_of(self, path: Path) -> BatchingParameters | None:
        if self.batching is None or not self.per_model_batching:
            return self.batching
        file = path / BATCHING_FILE
        try:
            return batching_parameters.read(file) if file.is_file() else None
        except StartError as error:
            raise ServingError(Code.INVALID_ARGUMENT, str(error)) from error

    def _warm_up(self, path: Path, servable: Servable, batching: BatchingParameters | None) -> None:
        records = path / warm_up.RECORDS
        if records.is_file():
            warm_up.replay(records, servable, self.runner, self.warm_up_iterations)
        else:
            sizes = batching.likely_sizes() if batching else [1]
            warm_up.run_zeros(servable, sizes, budget_s=WARM_UP_BUDGET_S, clock=time.monotonic)
