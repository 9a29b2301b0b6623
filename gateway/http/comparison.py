"""The route that says which of two targets is faster, and whether they agree."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from evidence import document
from evidence.document import Comparison
from gateway.catalogue import Catalogue
from gateway.errors import DatabaseUnavailable, InvalidParameter, ModelNotFound, StatisticsUnavailable
from gateway.evidence import Evidence
from gateway.http import problems
from gateway.http.keys import Guard
from gateway.policies import Policies
from gateway.routing import TARGET_PATTERN, Target

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 366 * 86400


class ComparisonParameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="The model's name.", examples=["digits"])
    window: str = Field(
        "1h",
        description="How far back to look at least, such as 15m, 1h or 7d. Counting starts at a multiple of that time, "
        "so that it stands still while the answer is asked for again: between one and two windows are looked at.",
        json_schema_extra={"pattern": "^[0-9]{1,9}[smhd]$"},
    )
    since: str | None = Field(
        None,
        json_schema_extra={"format": "date-time"},
        description="When to start instead, as ISO 8601 (2026-03-31T08:00:00Z; without an offset UTC).",
    )
    a: str | None = Field(
        None,
        json_schema_extra={"pattern": TARGET_PATTERN},
        description="The first target: torch, tf, or either with a version, tf@2; without one its default version. By "
        "default both are those of the model's policy where that names two, else torch and tf.",
    )
    b: str | None = Field(
        None,
        json_schema_extra={"pattern": TARGET_PATTERN},
        description="The second target. The same as the first: it against itself.",
    )


class ComparisonRoutes:
    def __init__(
        self,
        evidence: Evidence,
        *,
        catalogue: Catalogue,
        policies: Policies,
        guard: Guard,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._evidence = evidence
        self._catalogue = catalogue
        self._policies = policies
        self._now = now
        self.router = router = APIRouter(route_class=guard.needs("read"))
        router.add_api_route(
            "/v1/comparison",
            self.compare,
            response_model=Comparison,
            responses=problems.answers(ModelNotFound, InvalidParameter, DatabaseUnavailable, StatisticsUnavailable),
        )

    async def compare(self, parameters: Annotated[ComparisonParameters, Query()]) -> Comparison:
        """Which target is faster, by how much, how certain that is, and whether both agree: from the requests so far.

        Intervals of `any number of looks` hold however often this is asked while `since` is the same in the answers.
        """
        now = self._now()
        if parameters.since is None:
            window_s = _window_s(parameters.window)
            since = (now // window_s - 1) * window_s
        else:
            since = _time(parameters.since, now)
            window_s = now - since
        default_version = self._catalogue.find(parameters.model).version
        a, b = (
            document.Target(runtime=each.runtime, version=each.version or default_version)
            for each in self._targets(parameters)
        )
        for target in (a, b):
            self._catalogue.find(parameters.model, target.version)
        found = await self._evidence.compare(parameters.model, a, b, since=since)
        return found.model_copy(update={"window_s": window_s})

    def _targets(self, parameters: ComparisonParameters) -> tuple[Target, Target]:
        if parameters.a is None and parameters.b is None:
            named = self._policies.of(parameters.model).policy.targets
            return (named[0], named[1]) if len(named) == 2 else (Target("torch"), Target("tf"))
        if parameters.a is None or parameters.b is None:
            raise InvalidParameter("Name both targets, a and b, or neither: then the model's policy says which two.")
        try:
            return Target.parse(parameters.a), Target.parse(parameters.b)
        except ValueError as error:
            raise InvalidParameter(str(error)) from None


def _window_s(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidParameter(
            f"window: {text!r} is no length of time up to 366 days. Write a number and a unit: 90s, 15m, 1h or 7d."
        )
    return float(seconds)


def _time(text: str, now: float) -> float:
    try:
        # In a query a plus that is not escaped means a space.
        given = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise InvalidParameter(
            f"since: {text!r} is no time. Write it as ISO 8601, such as 2026-03-31T08:00:00Z, or give a window, 1h."
        ) from None
    seconds = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    if seconds >= now:
        raise InvalidParameter(f"since: {text} is in the future. Give an earlier time, or a window such as 1h.")
    return seconds
