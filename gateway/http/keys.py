"""The admin key: made at the first start, kept in a file that only its owner can read."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from fastapi import Request

from gateway.errors import Unauthenticated


def load_or_create_admin_key(path: Path) -> str:
    """The key in the file `path`, made when there is none. Several processes may do this at once: one makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    try:
        os.link(aside, path)  # unlike rename, fails when another process was first
    except FileExistsError:
        pass  # its key stands, for this process too
    finally:
        aside.unlink()
    return path.read_text().strip()


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
