"""Moves canaries, step by step or back, on what the request log shows. Of all gateway processes one does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog
from sqlalchemy import Connection, select

from evidence.document import Target as Measured
from gateway.catalogue import Catalogue
from gateway.database import Database
from gateway.errors import DatabaseUnavailable, ModelNotFound, RuntimeFault, StatisticsUnavailable
from gateway.evidence import Evidence
from gateway.guards import Decision, Hold, Promote, RollBack, decide
from gateway.lease import LEASE_S, Lease
from gateway.metrics import Metrics
from gateway.policies import Kept, Policies
from gateway.progress import Action
from gateway.request_log import TABLE as LOG
from gateway.routing import Canary, Progress, Target

_log = structlog.get_logger(__name__)

_LOOK_S = 2.0
_BRAKE_READS, _BRAKE_LOOKS_AT, _BRAKE_NEEDS = 20_000, 100, 20
"""Newest rows of a step that the brake reads, how many requests of the target it looks at, and how few are too few."""
_FAILED = frozenset(fault.code for fault in RuntimeFault.__subclasses__()) | {"internal_error"}
_JUDGED = _FAILED | {"ok"}


class Canaries:
    def __init__(
        self,
        policies: Policies,
        *,
        catalogue: Catalogue,
        database: Database,
        evidence: Evidence | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Without `evidence` no canary moves on; those that mostly fail are rolled back all the same."""
        self._policies = policies
        self._catalogue = catalogue
        self._database = database
        self._evidence = evidence
        self._metrics = metrics
        self._clock = clock
        self._lease = Lease(database, "canaries", clock=clock)
        self._gone: set[tuple[str, int]] = set()
        """Canaries, by model and revision, of which the last look missed a version."""
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            began_s = time.monotonic()
            try:
                await self.look()
            except DatabaseUnavailable:
                _log.warning("canaries_not_looked_at", detail="The database is away: no canary moves until it is back.")
            except Exception:  # a fault of ours must not end the watching
                _log.exception("canaries_not_looked_at")
            # Statistics over many requests take long: they are to have a part of a processor, not all of it.
            took_s = time.monotonic() - began_s
            await asyncio.sleep(min(max(_LOOK_S, 4 * took_s), LEASE_S / 2))

    async def close(self) -> None:
        """Let another process take over at once."""
        try:
            await self._lease.give_back()
        except DatabaseUnavailable:
            _log.info("lease_not_given_back", detail=f"Another gateway moves canaries in {LEASE_S:g} s.")

    async def look(self) -> None:
        """Move each canary for which it is time, if that is for this process to do. Raises DatabaseUnavailable."""
        canaries = self._policies.canaries()
        self._measure(canaries)
        for model, policy, kept in canaries:
            if kept.progress is None or kept.progress.state != "running":
                continue
            if not await self._lease.take():  # and renewed before each: one look may take long
                return
            try:
                decision = await self._decide(model, policy, kept, kept.progress)
                await self._follow(model, policy, kept, kept.progress, decision)
            except DatabaseUnavailable:
                raise
            except Exception:  # a fault of ours with one model must not end the watching of the others
                _log.exception("canary_not_looked_at", model=model)
        self._measure(self._policies.canaries())

    async def _decide(self, model: str, policy: Canary, kept: Kept, progress: Progress) -> Decision:
        """Raises DatabaseUnavailable."""
        end = self._find(model, policy.to)
        if end is None:
            return self._gone_for_good(model, policy, kept)
        self._gone.discard((model, kept.revision))
        if braked := await self._brake(model, end, progress.since):
            return RollBack(f"{policy.to} {braked}")
        start = self._find(model, policy.from_)
        if start is None:
            return Hold(f"waiting: the version of {policy.from_} is gone, so that there is nothing to compare with")
        if start == end:
            return Hold(f"waiting: {policy.from_} and {policy.to} are the same version now")
        if self._evidence is None:
            return Hold("waiting: this gateway has no statistics")
        try:
            comparison = await self._evidence.compare(model, start, end, since=progress.since)
        except StatisticsUnavailable as error:
            return Hold(f"waiting for statistics: {error}")
        return decide(policy, progress, comparison, self._clock())

    async def _follow(self, model: str, policy: Canary, kept: Kept, before: Progress, decision: Decision) -> None:
        """Raises DatabaseUnavailable."""
        action: Action | None = None
        after, now = before, self._clock()
        match decision:
            case Promote(why) if before.step + 1 < len(policy.steps):
                action = "promote"
                shares = f"{policy.to} answers {policy.steps[before.step + 1]:.4g} of the requests"
                after = Progress(before.step + 1, now, "running", f"{shares}: {why}")
            case Promote(why):
                action = "promote"
                after = Progress(before.step, now, "promoted", f"{policy.to} stays: {why}")
            case RollBack(why):
                action = "roll_back"
                after = Progress(before.step, now, "rolled_back", why)
            case Hold(why):
                after = replace(before, why=why)
        if after == before or not await self._policies.move(model, kept, after, action):
            return
        if action is not None:
            self._metrics.canary_decisions.labels(model, action).inc()

    def _gone_for_good(self, model: str, policy: Canary, kept: Kept) -> Decision:
        """Another process may have set a policy for a version that this one has not seen yet: look twice."""
        if (model, kept.revision) in self._gone:
            return RollBack(f"the version of {policy.to} is gone")
        self._gone.add((model, kept.revision))
        return Hold(f"waiting: the version of {policy.to} is not there")

    async def _brake(self, model: str, target: Measured, since: float) -> str | None:
        """Whether the target fails so much that no statistics are needed. Raises DatabaseUnavailable."""
        outcomes = await self._database.run(partial(_newest_outcomes, model, target, since))
        failed = sum(outcome in _FAILED for outcome in outcomes)
        if len(outcomes) < _BRAKE_NEEDS or failed * 2 <= len(outcomes):
            return None
        return f"failed {failed} of its last {len(outcomes)} requests"

    def _find(self, model: str, target: Target) -> Measured | None:
        """The target as it is now; None where its version is gone."""
        try:
            return Measured(runtime=target.runtime, version=self._catalogue.find(model, target.version).version)
        except ModelNotFound:
            return None

    def _measure(self, canaries: Sequence[tuple[str, Canary, Kept]]) -> None:
        for model, policy, kept in canaries:
            self._metrics.canary_share.labels(model).set(policy.share(kept.progress))
            for action in ("promote", "roll_back"):
                # Of a series that appears with its first count, Prometheus sees no increase.
                self._metrics.canary_decisions.labels(model, action)
        shown = {model for model, _, _ in canaries}
        for model in self._shown - shown:
            self._metrics.canary_share.remove(model)
        self._shown = shown


def _newest_outcomes(model: str, target: Measured, since: float, connection: Connection) -> Sequence[str]:
    """Of requests that were answered or failed."""
    # Of a target with a tiny share the newest hundred may lie far back: this must not read through a whole day's log.
    newest = (
        select(LOG)
        .where(LOG.c.model == model, LOG.c.time >= since)
        .order_by(LOG.c.time.desc())
        .limit(_BRAKE_READS)
        .subquery()
    )
    return connection.scalars(
        select(newest.c.outcome)
        .where(
            newest.c.runtime == target.runtime,
            newest.c.version == target.version,
            newest.c.policy == "canary",
            newest.c.role.in_(("primary", "shadow")),  # others are asked because somebody else failed
            newest.c.outcome.in_(_JUDGED),
        )
        .order_by(newest.c.time.desc())
        .limit(_BRAKE_LOOKS_AT)
    ).all()
