"""The admin key: made at the first start, kept in a file that only its owner can read."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastapi import Request

from gateway.errors import Unauthenticated


class InvalidKeyFile(Exception):
    """The file with the admin key holds none."""


def load_or_create_admin_key(path: Path) -> str:
    """The key in the file `path`, made when there is none. Several processes may do this at once: one makes it.

    Raises InvalidKeyFile for an empty file: its key would be what every request without one carries.
    """
    if not path.exists():
        _create(path)
    key = path.read_text().strip()
    if not key:
        raise InvalidKeyFile(f"{path} is empty. Remove it: the next start makes a new admin key.")
    return key


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Readable by its owner only, and named like no other: one that a killed process left behind is in nobody's way.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as aside:
        aside.write(secrets.token_urlsafe(32) + "\n")
        aside.flush()
        with suppress(FileExistsError):  # another process was first: its key stands, for this process too
            os.link(aside.name, path)


def require_admin(admin_key: str) -> Callable[[Request], None]:
    """A dependency for admin routes. Raises Unauthenticated. Loopback is no credential."""

    def check(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), admin_key.encode()):
            raise Unauthenticated(
                "This route needs the admin key: send 'Authorization: Bearer <key>'. "
                "The gateway wrote the key to admin.key in its var folder when it first started."
            )

    return check
