"""A version's life, and which versions may end: TensorFlow Serving's servable states and its policy between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tf_worker.errors import ServingError
from tf_worker.servable import Servable


class State(IntEnum):
    """`ModelVersionStatus.State`, by its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class Version:
    """A version the server has been told of; it is remembered after its end, as the real server does."""

    path: Path
    state: State = State.START
    error: ServingError | None = None
    """Why it did not load; only in END."""
    servable: Servable | None = None
    in_use: int = 0
    """Requests that hold the servable."""
    aspired: bool = True
    """Whether it is to be served. What is not is not tried again, and unloaded when the policy lets it go."""


def available(versions: Mapping[int, Version]) -> list[int]:
    return [number for number, version in versions.items() if version.state is State.AVAILABLE]


def to_unload(versions: Mapping[int, Version]) -> list[int]:
    """The versions of a model that may go now, lowest first: the real server's availability-preserving policy.

    While none of those that are to be served is there, the highest of the others stays.
    """
    there = available(versions)
    going = sorted(number for number in there if not versions[number].aspired)
    is_served = any(versions[number].aspired for number in there)
    is_wanted = any(version.aspired for version in versions.values())
    return going if is_served or not is_wanted else going[:-1]
