"""Policies that several gateways keep in one PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import Engine, inspect
from structlog.testing import capture_logs

from gateway.database import METADATA, Database, make_tables, open_engine
from gateway.errors import DatabaseUnavailable
from gateway.policies import Policies
from gateway.routing import Fixed, Target
from gateway.settings import Settings
from tests.support.postgres import Server

pytestmark = pytest.mark.anyio

DEFAULT = Fixed(policy="fixed", target=Target("torch"))
Opened = Callable[[], Policies]


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    """Opens the database as another gateway would."""
    with ExitStack() as stack:

        def open_again() -> Policies:
            database = stack.enter_context(closing(Database(Settings(database_url=url).database)))
            return Policies(database, DEFAULT)

        yield open_again


async def test_each_change_of_gateways_that_change_at_once_has_a_revision_of_its_own_and_reaches_all(
    opened: Opened,
) -> None:
    gateways = [opened() for _ in range(3)]
    changes = [
        (gateway, model, version)
        for version in range(1, 11)
        for gateway in gateways
        for model in ("digits", "shapes", "flowers")
    ]
    kept = await asyncio.gather(
        *(
            gateway.set(model, Fixed(policy="fixed", target=Target("tf", version)))
            for gateway, model, version in changes
        )
    )
    assert sorted(each.revision for each in kept) == list(range(1, len(changes) + 1))
    for gateway in gateways:
        await gateway.refresh()
    for model in ("digits", "shapes", "flowers"):
        assert len({str(gateway.of(model)) for gateway in gateways}) == 1
    assert max(gateways[0].of(model).revision for model in ("digits", "shapes", "flowers")) == len(changes)


async def test_a_policy_outlives_the_gateway_and_the_server(opened: Opened, server: Server) -> None:
    policies = opened()
    changed = Fixed(policy="fixed", target=Target("tf", 2))
    await policies.set("digits", changed)
    server.stop()
    try:
        with capture_logs() as logs:
            for _ in range(3):
                await policies.refresh()
            with pytest.raises(DatabaseUnavailable):
                await policies.set("digits", DEFAULT)
        assert [line["event"] for line in logs] == ["database_away"]
        assert policies.of("digits").policy == changed
    finally:
        server.start()
    for each in (policies, opened()):
        await each.refresh()
        assert each.of("digits").policy == changed
    await policies.set("digits", DEFAULT)
    assert policies.of("digits").policy == DEFAULT


def test_gateways_that_start_at_once_make_the_tables_once(url: str) -> None:
    engines = [open_engine(Settings(database_url=url).database) for _ in range(6)]
    together = threading.Barrier(len(engines))

    def make(engine: Engine) -> None:
        together.wait()
        make_tables(engine)

    try:
        with ThreadPoolExecutor(len(engines)) as threads:
            for made in [threads.submit(make, engine) for engine in engines]:
                made.result()
        assert set(METADATA.tables) <= set(inspect(engines[0]).get_table_names())
    finally:
        for engine in engines:
            engine.dispose()
