"""Policies: which target answers a request, and which one is asked about it as well.

A policy is a class here, and a member of `Policy`.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from modelkit.spec import RuntimeName

_TARGET = "(torch|tf)(@[1-9][0-9]{0,8})?"
TARGET_PATTERN = f"^{_TARGET}$"
PAIR_PATTERN = f"^{_TARGET},{_TARGET}$"


@dataclass(frozen=True)
class Target:
    runtime: RuntimeName
    version: int | None = None
    """None: the version that the request names, by default the model's default version."""

    @classmethod
    def parse(cls, text: object) -> Target:
        """`torch`, `tf`, or either with a version, `torch@2`. Raises ValueError."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or not re.fullmatch(_TARGET, text):
            raise ValueError(f"{text!r} is no target. Targets are torch and tf, or with a version torch@2 and tf@2.")
        runtime, _, version = text.partition("@")
        return cls("torch" if runtime == "torch" else "tf", int(version) if version else None)

    def __str__(self) -> str:
        return self.runtime if self.version is None else f"{self.runtime}@{self.version}"


@dataclass(frozen=True)
class TargetPair:
    """Two targets that are compared."""

    first: Target
    second: Target

    @classmethod
    def parse(cls, text: object) -> TargetPair:
        """`torch,tf`. Raises ValueError."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or text.count(",") != 1:
            raise ValueError("name two targets with a comma between them, such as torch,tf or torch@1,torch@2")
        return cls(*map(Target.parse, text.split(",")))

    @property
    def names(self) -> tuple[str, str]:
        """A target that is compared with itself has two, too."""
        return str(self.first), f"{self.second} again" if self.first == self.second else str(self.second)


TargetName = Annotated[
    Target,
    PlainValidator(Target.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": TARGET_PATTERN, "examples": ["torch", "tf@2"]}),
]


@dataclass(frozen=True)
class Route:
    """What a policy decides for one request."""

    target: Target
    shadow: Target | None = None
    control: bool = False
    """Whether the target is asked again, too, as a shadow: in an order by chance with the other one."""
    other: Target | None = None
    """Who is asked where the target fails or is late; None: the other runtime with the same version."""


@dataclass(frozen=True)
class Progress:
    """How far a canary has come."""

    step: int
    """Index into its steps."""
    since: float
    """Unix time since which `step` and `state` are so."""
    state: Literal["running", "promoted", "rolled_back"]
    why: str
    """What was decided last, or what it waits for: a sentence."""


class Present(Protocol):
    """What a policy may ask of the moment at which it chooses."""

    @property
    def progress(self) -> Progress | None:
        """Of the policy, where it is a canary."""
        ...

    def ready(self, target: Target) -> bool:
        """Whether it can answer."""
        ...

    def expected_s(self, target: Target) -> float | None:
        """How long it takes, in seconds; None where that is not known well enough."""
        ...

    def due(self, target: Target) -> bool:
        """Whether it must be asked so that this becomes known. True is said once, to whoever will ask it."""
        ...


class Hedge(BaseModel):
    """When the other runtime is asked, too, about a request that the first one has not answered yet."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after_ms: float | None = Field(None, gt=0, le=600_000, allow_inf_nan=False, strict=True)
    """After so many milliseconds; null: after what 95 % of the target's newest requests took."""
    budget: float = Field(0.05, gt=0, le=1, allow_inf_nan=False, strict=True)
    """Share of the requests of which the other runtime may be asked, too."""


def _off(value: object) -> bool:
    return not value


class _Policy(BaseModel, ABC):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)

    # What is off is left out, so that a policy without it is kept, shown and read as before there was any.
    hedge: Hedge | None = Field(default=None, exclude_if=_off)
    """Whether a request that is late is sent to the other runtime, too; the first good answer is taken."""

    @property
    @abstractmethod
    def fails_over(self) -> bool:
        """Whether the other runtime is asked where the first one fails."""

    @property
    @abstractmethod
    def targets(self) -> Sequence[Target]:
        """All that it names."""

    @abstractmethod
    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:
        """`key`: what the client says the request belongs to."""


class _MayFailOver(_Policy):
    failover: bool = Field(default=False, exclude_if=_off, strict=True)
    """Whether the other runtime, with the same version, is asked where the first one fails."""

    @property
    def fails_over(self) -> bool:
        return self.failover


class Fixed(_MayFailOver):
    """One target answers every request."""

    policy: Literal["fixed"]
    target: TargetName

    @property
    def targets(self) -> Sequence[Target]:
        return [self.target]

    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:  # noqa: ARG002
        return Route(self.target)


class Weighted(_MayFailOver):
    """Each target answers its share of the requests; those with the same key are answered by the same target."""

    policy: Literal["weighted"]
    weights: Annotated[
        dict[TargetName, Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False, strict=True)]],
        Field(min_length=1, max_length=16, examples=[{"torch": 0.9, "tf": 0.1}]),
    ]
    """By target; a target's share is its weight divided by their sum."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if sum(self.weights.values()) < 0.001:
            raise ValueError("the weights add up to less than 0.001. Give at least one target a weight, such as 1.")
        return self

    @property
    def targets(self) -> Sequence[Target]:
        return list(self.weights)

    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:  # noqa: ARG002
        weights = {target: weight for target, weight in self.weights.items() if weight}
        if key is None:
            (target,) = chance.choices(list(weights), list(weights.values()))
        else:
            # Weighted rendezvous hashing: of the keys, only the share that a target loses or gains ever moves.
            target = min(weights, key=lambda each: -math.log(_unit(f"{each} {key}")) / weights[each])
        return Route(target)


class Shadow(_MayFailOver):
    """The primary answers; the shadow is asked about a sample of the same pictures, and only measured."""

    policy: Literal["shadow"]
    primary: TargetName
    shadow: TargetName
    sample_rate: float = Field(1.0, ge=0, le=1, allow_inf_nan=False, strict=True)
    """Share of the requests that are shadowed."""
    control_rate: float = Field(0.2, ge=0, le=1, allow_inf_nan=False, strict=True)
    """Share of the shadowed requests about which the primary is asked again, too, in an order by chance with the
    shadow: these say which one is faster. The others say whether both agree."""

    @property
    def targets(self) -> Sequence[Target]:
        return [self.primary, self.shadow]

    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:  # noqa: ARG002
        if chance.random() >= self.sample_rate:
            return Route(self.primary)
        return Route(self.primary, self.shadow, control=chance.random() < self.control_rate)


class Fastest(_MayFailOver):
    """The target that is expected to be the fastest answers; a small share goes to the others, to keep them known."""

    policy: Literal["fastest"]
    targets_: Annotated[
        tuple[TargetName, ...], Field(alias="targets", min_length=2, max_length=16, examples=[["torch", "tf"]])
    ]
    explore: float = Field(0.05, ge=0, le=1, allow_inf_nan=False, strict=True)
    """Share of the requests that the other targets answer."""

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.targets_)) < len(self.targets_):
            raise ValueError("a target is named twice. Name each once.")
        return self

    @property
    def targets(self) -> Sequence[Target]:
        return self.targets_

    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:  # noqa: ARG002
        ready = [target for target in self.targets_ if present.ready(target)] or self.targets_
        for target in ready:
            if present.due(target):
                return Route(target)
        known = {target: expected for target in ready if (expected := present.expected_s(target)) is not None}
        best = min(known, key=known.__getitem__) if known else chance.choice(ready)
        others = [target for target in ready if target != best]
        return Route(chance.choice(others) if others and chance.random() < self.explore else best)


class Failover(_Policy):
    """The first target that is ready answers; where it fails, the other one does."""

    policy: Literal["failover"]
    targets_: Annotated[tuple[TargetName, TargetName], Field(alias="targets", examples=[["torch", "tf"]])]

    @model_validator(mode="after")
    def _two_runtimes(self) -> Self:
        first, second = self.targets_
        if first.runtime == second.runtime:
            raise ValueError(
                f"{first} and {second} are of one runtime, and fail together. Name a target of each runtime."
            )
        return self

    @property
    def fails_over(self) -> bool:
        return True

    @property
    def targets(self) -> Sequence[Target]:
        return self.targets_

    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:  # noqa: ARG002
        first, second = self.targets_
        if not present.ready(first) and present.ready(second):
            first, second = second, first
        return Route(first, other=second)


class Guards(BaseModel):
    """What a canary's new target must hold. Each is judged by what was measured since the step began."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    latency_ratio: float = Field(1.1, gt=0, le=1000, allow_inf_nan=False, strict=True)
    """`to` may take at most so many times as long as `from`."""
    error_rate: float = Field(0.01, ge=0, le=1, allow_inf_nan=False, strict=True)
    """Share of its requests that `to` may fail, or as many as `from` fails, if those are more."""
    agreement: float | None = Field(0.99, ge=0, le=1, allow_inf_nan=False, strict=True)
    """Share of the pictures on which both must say the same; null: no matter."""


class Canary(_MayFailOver):
    """`to` answers a share of the requests that grows while the guards hold, and is 0 once one is broken."""

    policy: Literal["canary"]
    from_: Annotated[TargetName, Field(alias="from")]
    to: TargetName
    steps: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1, strict=True)], ...], Field(min_length=1, max_length=32)
    ] = (
        0.01,
        0.05,
        0.25,
        1.0,
    )
    """Shares of the requests that `to` answers, one after the other; the last is 1."""
    hold_s: float = Field(600, ge=1, le=30 * 24 * 3600, allow_inf_nan=False, strict=True)
    """Least time at each step, in seconds."""
    sample_rate: float = Field(0.1, ge=0, le=1, allow_inf_nan=False, strict=True)
    """Share of the requests that the other target is asked about, too: both are measured on the same pictures."""
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.from_ == self.to:
            raise ValueError("from and to are the same target. Name two.")
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 1:
            raise ValueError("the steps must rise, and the last must be 1, such as 0.01, 0.05, 0.25, 1.")
        if self.sample_rate == 0 and self.guards.agreement is not None:
            raise ValueError(
                "without samples there is no agreement. Give a sample_rate above 0, or set guards.agreement to null."
            )
        return self

    @property
    def targets(self) -> Sequence[Target]:
        return [self.from_, self.to]

    def share(self, progress: Progress | None) -> float:
        """Of the requests, that `to` answers."""
        if progress is None or progress.state == "rolled_back":
            return 0.0
        return 1.0 if progress.state == "promoted" else self.steps[progress.step]

    def route(self, key: str | None, chance: random.Random, present: Present) -> Route:
        # A threshold for each key: one that `to` answers stays with it while the share grows.
        unit = chance.random() if key is None else _unit(f"{self.to} {key}")
        ours, other = (self.to, self.from_) if unit < self.share(present.progress) else (self.from_, self.to)
        running = present.progress is not None and present.progress.state == "running"
        if not running or chance.random() >= self.sample_rate:
            return Route(ours)
        return Route(ours, other, control=True)


Policy = Annotated[Fixed | Weighted | Shadow | Fastest | Failover | Canary, Field(discriminator="policy")]


def _unit(text: str) -> float:
    """A number between 0 and 1, the same for the same text in every process."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64
