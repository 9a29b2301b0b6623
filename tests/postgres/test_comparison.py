"""A comparison read from PostgreSQL."""

from __future__ import annotations

import numpy as np
import pytest

from comparison.process import Process
from gateway.database import open_engine
from gateway.settings import Settings
from gateway.statistics import Statistics
from tests.support.inferences import TF, TORCH, pairs, write

pytestmark = pytest.mark.anyio


async def test_a_comparison_is_read_from_postgresql(url: str) -> None:
    a, b = Process(0.0, slowdown=1.2).draw(1000, np.random.default_rng(3))
    database = Settings(database_url=url).database
    engine = open_engine(database)
    with engine.begin() as connection:
        write(connection, pairs(a, b))
    engine.dispose()
    statistics = Statistics(database, lambda *_: {})
    try:
        found = await statistics.compare("digits", TORCH, TF, since=0.0)
    finally:
        await statistics.close()
    assert (found.faster, found.paired.n) == ("tf", 1000)
