"""A Redis server from Debian's packages: only `make test-redis` runs this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis import PROGRAMS, Server, installed, running_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if not installed():
        pytest.fail(f"{' and '.join(PROGRAMS)} is missing: run `make test-redis`, which installs it.")
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder) as server:
        yield server
