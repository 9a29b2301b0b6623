"""What one gateway process has of canaries, with a clock and statistics that say what they are told to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import insert

from evidence.document import Comparison, Target
from gateway.canary import Canaries
from gateway.catalogue import Catalogue
from gateway.database import Database
from gateway.metrics import Metrics
from gateway.policies import Policies
from gateway.request_log import TABLE as LOG
from gateway.routing import Fixed, Progress
from gateway.routing import Target as Named
from tests.support.clock import Clock
from tests.support.comparisons import comparison


class Statistics:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.error: Exception | None = None
        self.well: set[str] = set()
        """Models for which there is no error."""
        self.asked: list[tuple[str, Target, Target, float]] = []
        self.meanwhile: Callable[[], Any] | None = None
        """Done while an answer is on its way, once."""

    async def compare(self, model: str, a: Target, b: Target, *, since: float) -> Comparison:
        self.asked.append((model, a, b, since))
        if self.meanwhile is not None:
            first, self.meanwhile = self.meanwhile, None
            await first()
        if self.error is not None and model not in self.well:
            raise self.error
        return comparison(a=a, b=b, since=since, **self.figures)


class Gateway:
    """What one process has of it all."""

    def __init__(self, folder: Path, stack: ExitStack, clock: Clock, statistics: Statistics | None) -> None:
        self.database = stack.enter_context(closing(Database(f"sqlite:///{folder / 'tandem.db'}")))
        self.policies = Policies(self.database, Fixed(policy="fixed", target=Named("torch")))
        self.metrics = Metrics(CollectorRegistry())
        self.catalogue = Catalogue(folder / "store")
        self.canaries = Canaries(
            self.policies,
            catalogue=self.catalogue,
            database=self.database,
            evidence=statistics,
            metrics=self.metrics,
            clock=clock,
        )

    async def look(self) -> None:
        await self.policies.refresh()
        await self.canaries.look()

    @property
    def progress(self) -> Progress:
        progress = self.policies.of("digits").progress
        assert progress is not None
        return progress

    @property
    def at(self) -> tuple[int, str]:
        return self.progress.step, self.progress.state

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "digits"} | labels)

    async def write(self, outcomes: dict[str, int], **columns: Any) -> None:
        """Rows of the request log, at the same moment."""
        row = {
            "request_id": "r", "side": 0, "called": 0, "model": "digits", "version": 2, "runtime": "tf",
            "role": "primary", "policy": "canary", "cold": False, "images": 1, "total_s": 0.01,
        } | columns  # fmt: skip
        rows = [row | {"outcome": outcome} for outcome, count in outcomes.items() for _ in range(count)]
        await self.database.run(lambda connection: connection.execute(insert(LOG), rows))
