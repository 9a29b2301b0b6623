"""What is asked of the statistics, which run in a process of their own."""

from __future__ import annotations

from typing import Protocol

from evidence.document import Comparison, Target


class Evidence(Protocol):
    async def compare(self, model: str, a: Target, b: Target, *, since: float) -> Comparison:
        """What the request log says of `a` and `b` since that Unix time. The same target twice: it against itself.

        The statistics' bounds for any number of looks hold over all calls with the same `since`. Raises
        DatabaseUnavailable, StatisticsUnavailable.
        """
        ...
