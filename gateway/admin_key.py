"""The admin key: made at the first start, kept in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from gateway.key_file import InvalidKeyFile


def load_or_create_admin_key(path: Path) -> str:
    """The key in the file `path`, made when there is none. Several processes may do this at once: one makes it.

    Raises InvalidKeyFile for an empty file: its key would be what every request without one carries.
    """
    if not path.exists():
        _create(path)
    return read(path)


def read(path: Path) -> str:
    """The key in the file `path`. Raises InvalidKeyFile."""
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidKeyFile(f"The admin key in {path} cannot be read: {error}.") from None
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
