"""A PostgreSQL server from Debian's packages: only `make test-postgres` runs this."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.postgres import PROGRAMS, Server, installed, running_postgres

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if not installed():
        pytest.fail(f"{' and '.join(PROGRAMS)} are missing: run `make test-postgres`, which installs them.")
    with running_postgres() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """A database of the test's own, as a user writes it into TANDEM_DATABASE_URL."""
    return server.create(f"tandem-{next(_NUMBERS)}")
