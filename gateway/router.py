"""From a request to the runtime and version that answer it, by the model's policy and what the request itself names."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from gateway.catalogue import Catalogue
from gateway.errors import Conflict, InvalidParameter, ModelNotFound
from gateway.health import Health
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.policies import Policies
from gateway.routing import Canary, Failover, Hedge, Policy, Progress, Route, Shadow, Target, TargetPair
from gateway.runtimes.base import ModelRef
from modelkit.spec import RUNTIME_NAMES, ModelSpec, RuntimeName

_log = structlog.get_logger(__name__)

NAMED = "named"
"""In the place of a policy's name, where the request names its runtime."""


@dataclass(frozen=True)
class Side:
    """A target, as it is now."""

    runtime: RuntimeName
    spec: ModelSpec


@dataclass(frozen=True)
class Plan:
    primary: Side
    policy: str
    """How the primary was chosen: the policy's name, or `named` where the request names the runtime."""
    shadow: Side | None = None
    control: bool = False
    """Whether the primary is asked again, as a shadow, beside the other one."""
    other: Side | None = None
    """Who else may answer."""
    failover: bool = False
    """Whether `other` is asked where the primary fails."""
    hedge: Hedge | None = None
    """When `other` is asked where the primary is late."""


class Router:
    def __init__(
        self,
        catalogue: Catalogue,
        policies: Policies,
        *,
        health: Health,
        latencies: Latencies,
        metrics: Metrics,
        chance: random.Random | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._policies = policies
        self._health = health
        self._latencies = latencies
        self._metrics = metrics
        self._chance = chance or random.Random()  # noqa: S311  not for secrets
        self._reported: set[tuple[str, int, Target]] = set()

    def plan(self, model: str, *, runtime: RuntimeName | None, version: int | None, key: str | None) -> Plan:
        """Who answers a request for `model`, and who shadows it. Raises ModelNotFound.

        A runtime that the request names takes the place of the policy, a version that of the targets' versions.
        """
        named = self._catalogue.find(model, version)
        if runtime is not None:
            return Plan(Side(runtime, named), NAMED)
        kept = self._policies.of(model)
        route = kept.policy.route(key, self._chance, self._present(model, version, kept.progress))
        primary = self._side(model, route.target, version)
        if primary is None:
            self._report(model, kept.revision, route.target)
        answering = primary or Side(route.target.runtime, named)
        other = self._other(model, kept.policy, route, answering, version)
        return Plan(
            answering,
            kept.policy.policy,
            self._shadow(model, route, primary, version),
            route.control,
            other,
            failover=other is not None and kept.policy.fails_over,
            hedge=None if other is None else kept.policy.hedge,
        )

    def pair(self, model: str, targets: TargetPair, *, version: int | None) -> tuple[Side, Side]:
        """`version` is that of targets without one.

        Raises ModelNotFound, and InvalidParameter where the one's tensors or answers are nothing for the other.
        """
        a, b = (
            Side(target.runtime, self._catalogue.find(model, target.version or version))
            for target in (targets.first, targets.second)
        )
        if difference := _difference(a.spec, b.spec):
            raise InvalidParameter(
                f"targets: versions {a.spec.version} and {b.spec.version} of {model} differ in their {difference}, so "
                "that neither tensors nor answers can be compared. Name two that are alike."
            )
        return a, b

    def check(self, model: str, policy: Policy) -> None:
        """Raises ModelNotFound, and Conflict for a policy that the versions there are now cannot follow."""
        versions = [spec.version for spec in self._catalogue.versions(model)]
        if missing := self.missing(model, policy):
            raise Conflict(
                f"{model} has no version for {', '.join(map(str, missing))}. It has: "
                f"{', '.join(map(str, versions))}. Name one of them, or add the version first (tandem models add)."
            )
        if isinstance(policy, Canary):
            start, end = (Side(each.runtime, self._catalogue.find(model, each.version)) for each in policy.targets)
            if start == end:
                raise Conflict(
                    f"{policy.from_} and {policy.to} are both version {end.spec.version} of {model} on {end.runtime} "
                    "now. Name two targets that differ."
                )
        if isinstance(policy, Shadow | Failover) or (isinstance(policy, Canary) and policy.sample_rate):
            first, second = (self._catalogue.find(model, target.version) for target in policy.targets)
            if difference := _difference(first, second):
                raise Conflict(
                    f"Versions {first.version} and {second.version} of {model} differ in their {difference}, so "
                    "that neither tensors nor answers can be shared. Name versions that are alike, or use weights, "
                    "or a canary with a sample_rate of 0."
                )

    def missing(self, model: str, policy: Policy) -> Sequence[Target]:
        """The targets whose version is not there. Raises ModelNotFound."""
        versions = {None, *(spec.version for spec in self._catalogue.versions(model))}
        return [target for target in policy.targets if target.version not in versions]

    def expected_s(self, model: str, target: Target) -> float | None:
        """How long `target` takes, as far as this process has measured it lately."""
        return self._present(model, None, None).expected_s(target)

    def _present(self, model: str, version: int | None, progress: Progress | None) -> _Present:
        return _Present(self._health, self._latencies, partial(self._side, model, version=version), progress)

    def _side(self, model: str, target: Target, version: int | None) -> Side | None:
        """None where the target's version is gone."""
        try:
            return Side(target.runtime, self._catalogue.find(model, version or target.version))
        except ModelNotFound:
            return None

    def _other(self, model: str, policy: Policy, route: Route, primary: Side, version: int | None) -> Side | None:
        if not policy.fails_over and policy.hedge is None:
            return None
        if route.other is None:
            (runtime,) = (name for name in RUNTIME_NAMES if name != primary.runtime)
            return Side(runtime, primary.spec)
        other = self._side(model, route.other, version)
        return None if other is None or _difference(primary.spec, other.spec) else other

    def _shadow(self, model: str, route: Route, primary: Side | None, version: int | None) -> Side | None:
        if route.shadow is None:
            return None
        if version is not None and {route.target.version, route.shadow.version} - {None, version}:
            return None  # the request asks for another pair than the policy compares
        shadow = self._side(model, route.shadow, version)
        if primary is None or shadow is None:
            self._metrics.drop_shadow(model, "no_version")
            return None
        if _difference(primary.spec, shadow.spec):
            self._metrics.drop_shadow(model, "other_input")
            return None
        return shadow

    def _report(self, model: str, revision: int, target: Target) -> None:
        if (model, revision, target) not in self._reported:
            self._reported.add((model, revision, target))
            _log.warning(
                "policy_target_gone",
                model=model,
                target=str(target),
                detail="The store does not hold this version any more: the default version answers in its place.",
            )


@dataclass(frozen=True)
class _Present:
    """This moment, for a policy: a target whose version is gone is as one that is not ready."""

    _health: Health
    _latencies: Latencies
    _side: Callable[[Target], Side | None]
    progress: Progress | None

    def ready(self, target: Target) -> bool:
        side = self._side(target)
        return side is not None and self._health.able(side.runtime, ModelRef.of(side.spec))

    def expected_s(self, target: Target) -> float | None:
        side = self._side(target)
        return None if side is None else self._latencies.expected_s(side.runtime, ModelRef.of(side.spec))

    def due(self, target: Target) -> bool:
        side = self._side(target)
        return side is not None and self._latencies.due(side.runtime, ModelRef.of(side.spec))


def _difference(first: ModelSpec, second: ModelSpec) -> str | None:
    """Why the one's input tensors, or its answers, are nothing for the other."""
    return next((each for each in ("task", "input", "labels") if getattr(first, each) != getattr(second, each)), None)
