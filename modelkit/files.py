"""Digests of files, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def digest(files: Iterable[Path], root: Path) -> str:
    """SHA-256 over the names (relative to `root`) and contents of `files`, in order of their names."""
    total = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        total.update(f"{path.relative_to(root)}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def tree(folder: Path) -> list[Path]:
    """Every file below `folder`."""
    return [path for path in folder.rglob("*") if path.is_file()]


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to fill; at the end of the block it takes the place of `folder`.

    When the block raises, or the process dies in it, `folder` is as it was. What a process that died left behind is
    removed by the next, so that only one process at a time may replace `folder` (see `locked`).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = f".{folder.name}.aside-"
    for left_over in folder.parent.glob(f"{aside}*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=aside) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def write_whole(path: Path, text: str) -> None:
    """Write `text` to the file `path`, which holds the old text or the new one at every moment. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    try:
        aside.write_text(text)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time is in here for the same `folder`; the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
