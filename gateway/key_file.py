"""The file with the API keys: whose they are and what they may do. Of a key itself it holds only a digest."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

Right = Literal["predict", "read", "admin"]
"""`predict`: predict and compare; `read`: see models, policies, comparisons and metrics; `admin`: everything."""
KeyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""Chosen by whoever makes the key: it stands in logs and metrics."""
Rate = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}/(second|minute|hour|day)$")]
"""Most requests in a time: `100/minute`."""

ADMIN = "admin"
"""The name of the key that the gateway makes at its first start; no other key has it."""
_PREFIX = "tandem"


class InvalidKeyFile(Exception):
    """A file with keys cannot be used. The message says why, and what to do."""


class Key(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]{1,32}$")
    """The part of the key that is no secret: by it a key is found."""
    name: KeyName
    rights: frozenset[Right] = Field(min_length=1)
    rate: Rate | None = None
    """Of all keys of this name together; null: as many as the gateway can do."""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the whole key, in hexadecimal digits."""

    def may(self, right: Right) -> bool:
        return right in self.rights or "admin" in self.rights

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[Key, ...]

    @model_validator(mode="after")
    def _well_named(self) -> Self:
        ids = Counter(key.id for key in self.keys)
        if twice := [each for each, count in ids.items() if count > 1]:
            raise ValueError(f"several keys have the id {twice[0]}")
        if any(key.name == ADMIN for key in self.keys):
            raise ValueError(f"the name {ADMIN!r} belongs to the key that the gateway makes")
        return self


def digest(key: str) -> str:
    """As `Key.sha256` has it. A key is 256 random bits: nobody finds it by trying, however fast a digest is made."""
    return hashlib.sha256(key.encode()).hexdigest()


def id_of(key: str) -> str:
    """The id in the text of a key; empty where there is none."""
    prefix, _, rest = key.partition("_")
    return rest.partition("_")[0] if prefix == _PREFIX else ""


def new_key(
    name: str, rights: frozenset[Right], *, rate: str | None, created: datetime, expires: datetime | None
) -> tuple[str, Key]:
    """A key as its owner sends it, which nobody can tell again, and what the file keeps of it.

    Raises ValidationError.
    """
    number = secrets.token_hex(4)
    text = f"{_PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    return text, Key(
        id=number, name=name, rights=rights, rate=rate, created=created, expires=expires, sha256=digest(text)
    )


def read(path: Path) -> tuple[Key, ...]:
    """The keys in the file. Raises InvalidKeyFile."""
    try:
        return _Content.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise InvalidKeyFile(f"The keys in {path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ")
            for each in error.errors(include_input=False)
        )
        raise InvalidKeyFile(f"{path} is no file of keys. Mend it, or make the keys anew. {said}.") from None


@contextmanager
def changed(path: Path) -> Iterator[list[Key]]:
    """The keys in the file, to be changed in the block: one process at a time. None are there where no file is.

    Whoever reads the file finds the old keys or the new ones. Raises InvalidKeyFile, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read(path)) if path.exists() else []
        yield keys
        _write(path, keys)


def _write(path: Path, keys: Sequence[Key]) -> None:
    content = _Content(keys=tuple(keys)).model_dump_json(indent=2)
    # Readable by its owner only, and named like no other: one that a killed process left behind is in nobody's way.
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except OSError:
        Path(aside).unlink(missing_ok=True)
        raise
