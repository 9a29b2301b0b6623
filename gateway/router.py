"""From a request to the runtime and version that answer it, by the model's policy and what the request itself names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from gateway.catalogue import Catalogue
from gateway.errors import Conflict, ModelNotFound
from gateway.metrics import Metrics
from gateway.policies import Policies
from gateway.routing import Policy, Route, Shadow, Target
from modelkit.spec import ModelSpec, RuntimeName

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


class Router:
    def __init__(
        self, catalogue: Catalogue, policies: Policies, *, metrics: Metrics, chance: random.Random | None = None
    ) -> None:
        self._catalogue = catalogue
        self._policies = policies
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
        route = kept.policy.route(key, self._chance)
        primary = self._side(model, route.target, version)
        if primary is None:
            self._report(model, kept.revision, route.target)
        return Plan(
            primary or Side(route.target.runtime, named),
            kept.policy.policy,
            self._shadow(model, route, primary, version),
        )

    def check(self, model: str, policy: Policy) -> None:
        """Raises ModelNotFound, and Conflict for a policy that the versions there are now cannot follow."""
        versions = [spec.version for spec in self._catalogue.versions(model)]
        if missing := self.missing(model, policy):
            raise Conflict(
                f"{model} has no version for {', '.join(map(str, missing))}. It has: "
                f"{', '.join(map(str, versions))}. Name one of them, or add the version first (tandem models add)."
            )
        if isinstance(policy, Shadow):
            first, second = (self._catalogue.find(model, target.version) for target in policy.targets)
            if difference := _difference(first, second):
                raise Conflict(
                    f"Versions {first.version} and {second.version} of {model} differ in their {difference}, so "
                    "that neither tensors nor answers can be shared. Shadow a version that is alike, or use weights."
                )

    def missing(self, model: str, policy: Policy) -> Sequence[Target]:
        """The targets whose version is not there. Raises ModelNotFound."""
        versions = {None, *(spec.version for spec in self._catalogue.versions(model))}
        return [target for target in policy.targets if target.version not in versions]

    def _side(self, model: str, target: Target, version: int | None) -> Side | None:
        """None where the target's version is gone."""
        try:
            return Side(target.runtime, self._catalogue.find(model, version or target.version))
        except ModelNotFound:
            return None

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


def _difference(first: ModelSpec, second: ModelSpec) -> str | None:
    """Why the one's input tensors, or its answers, are nothing for the other."""
    return next((each for each in ("task", "input", "labels") if getattr(first, each) != getattr(second, each)), None)
