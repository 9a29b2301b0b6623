"""Fixtures of the tests over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Name it before the gateway that sends to it, so that it is there for what is left at the end."""
    with collecting() as collector:
        yield collector
