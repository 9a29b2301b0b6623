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
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from modelkit.spec import RuntimeName

_TARGET = r"^(torch|tf)(@[1-9][0-9]{0,8})?$"


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
        if not isinstance(text, str) or not re.match(_TARGET, text) or text.endswith("\n"):
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
    WithJsonSchema({"type": "string", "pattern": _TARGET, "examples": ["torch", "tf@2"]}),
]


@dataclass(frozen=True)
class Route:
    """What a policy decides for one request."""

    target: Target
    shadow: Target | None = None


class _Policy(BaseModel, ABC):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    @abstractmethod
    def targets(self) -> Sequence[Target]:
        """All that it names."""

    @abstractmethod
    def route(self, key: str | None, chance: random.Random) -> Route:
        """`key`: what the client says the request belongs to."""


class Fixed(_Policy):
    """One target answers every request."""

    policy: Literal["fixed"]
    target: TargetName

    @property
    def targets(self) -> Sequence[Target]:
        return [self.target]

    def route(self, key: str | None, chance: random.Random) -> Route:  # noqa: ARG002  the same for each
        return Route(self.target)


class Weighted(_Policy):
    """Each target answers its share of the requests; those with the same key are answered by the same target."""

    policy: Literal["weighted"]
    weights: Annotated[
        dict[TargetName, Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]],
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

    def route(self, key: str | None, chance: random.Random) -> Route:
        weights = {target: weight for target, weight in self.weights.items() if weight}
        if key is None:
            (target,) = chance.choices(list(weights), list(weights.values()))
        else:
            # Weighted rendezvous hashing: of the keys, only the share that a target loses or gains ever moves.
            target = min(weights, key=lambda each: -math.log(_unit(f"{each} {key}")) / weights[each])
        return Route(target)


class Shadow(_Policy):
    """The primary answers; the shadow is asked about a sample of the same pictures, and only measured."""

    policy: Literal["shadow"]
    primary: TargetName
    shadow: TargetName
    sample_rate: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    """Share of the requests that are shadowed."""

    @property
    def targets(self) -> Sequence[Target]:
        return [self.primary, self.shadow]

    def route(self, key: str | None, chance: random.Random) -> Route:  # noqa: ARG002  each for itself
        return Route(self.primary, self.shadow if chance.random() < self.sample_rate else None)


Policy = Annotated[Fixed | Weighted | Shadow, Field(discriminator="policy")]


def _unit(text: str) -> float:
    """A number between 0 and 1, the same for the same text in every process."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64
