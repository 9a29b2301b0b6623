"""Which key the command line sends."""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path

from tandem.client import Client
from tandem.terminal import EXIT_USAGE, fail, local_url, settings_here

KEY_FILE: ContextVar[Path | None] = ContextVar("key_file", default=None)
"""What `--key-file` names in this run of the command line."""


def open_client(url: str | None) -> Client:
    """The gateway at `url`, by default the local stack's, and the key for it."""
    return Client(url or local_url(), api_key(url))


def api_key(url: str | None) -> str | None:
    """The key of `--key-file` or the environment; else the local stack's admin key, where no other gateway's `url` is
    given."""
    if (given_file := KEY_FILE.get()) is not None:
        return _read(given_file)
    if given := os.environ.get("TANDEM_API_KEY"):
        return given.strip()
    path = settings_here().admin_key_file
    # Where there is none, or it is another user's, the gateway says whether a key is needed.
    return path.read_text().strip() if url is None and os.access(path, os.R_OK) else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"The key in {path} cannot be read: {error}.", EXIT_USAGE)
