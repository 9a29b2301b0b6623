"""By what a file is known to have changed, without reading it."""

from __future__ import annotations

from pathlib import Path

FileStamp = tuple[int, int, int] | None
"""Another one when the file is another, or has other content; None: it cannot be looked at."""


def file_stamp(path: Path | str) -> FileStamp:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
