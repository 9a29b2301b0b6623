"""Where the command line has the admin key from."""

from __future__ import annotations

import os

from tandem.models_cli import settings_here
from tandem.terminal import EXIT_FAILED, fail


def admin_key(url: str | None) -> str | None:
    """The key in the environment, or the local stack's, where no other gateway's `url` is given."""
    if given := os.environ.get("TANDEM_ADMIN_KEY"):
        return given
    path = settings_here().admin_key_file
    if url is not None or not path.exists():
        return None  # another gateway's is not there, and this one says that it is needed
    try:
        return path.read_text().strip()
    except OSError as error:
        fail(f"The admin key in {path} cannot be read: {error.strerror}.", EXIT_FAILED)
