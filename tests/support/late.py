"""A fault in TorchServe's archive of a version: its handler is late."""

from __future__ import annotations

import zipfile
from pathlib import Path


def make_late(archive: Path, seconds: float) -> None:
    """Have the handler in `archive` sleep before each batch that it runs."""
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    files["handler.py"] += f"""

_on_time = Model.run


def _late(self, size):
    time.sleep({seconds})
    return _on_time(self, size)


Model.run = _late
""".encode()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as new:
        for name, content in files.items():
            new.writestr(name, content)
