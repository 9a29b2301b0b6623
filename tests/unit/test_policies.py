"""Policies in the database: over restarts, over processes, and while it is away."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.database import Database
from gateway.errors import DatabaseUnavailable
from gateway.policies import Policies
from gateway.routing import Fixed, Policy, Shadow, Target, Weighted

pytestmark = pytest.mark.anyio

TORCH, TF = Target("torch"), Target("tf")
DEFAULT = Fixed(policy="fixed", target=TORCH)
FIXED = Fixed(policy="fixed", target=Target("tf", 2))
WEIGHTED = Weighted(policy="weighted", weights={TORCH: 0.9, TF: 0.1})
SHADOW = Shadow(policy="shadow", primary=TORCH, shadow=TF, sample_rate=0.5)

Opened = Callable[[], Policies]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens the database as another process would."""
    with ExitStack() as stack:

        def open_again() -> Policies:
            database = stack.enter_context(closing(Database(f"sqlite:///{tmp_path / 'tandem.db'}")))
            return Policies(database, DEFAULT)

        yield open_again


async def test_without_any_the_default_is_in_force(opened: Opened) -> None:
    policies = opened()
    await policies.refresh()
    kept = policies.of("digits")
    assert (kept.policy, kept.revision, kept.updated) == (DEFAULT, 0, None)


async def test_what_was_set_is_there_after_a_restart(opened: Opened) -> None:
    first = opened()
    for model, policy in (("digits", FIXED), ("shapes", SHADOW), ("digits", WEIGHTED)):
        await first.set(model, policy)
    again = opened()
    await again.refresh()
    for model, policy, revision in (("digits", WEIGHTED, 3), ("shapes", SHADOW, 2)):
        assert again.of(model) == first.of(model)
        assert (again.of(model).policy, again.of(model).revision) == (policy, revision)
    assert again.of("digits").updated is not None


async def test_each_change_is_seen_by_the_other_processes_at_their_next_look(opened: Opened) -> None:
    one, other = opened(), opened()
    changes: list[Policy] = [FIXED, WEIGHTED, SHADOW, WEIGHTED]
    for number, policy in enumerate(changes, 1):
        await (one if number % 2 else other).set("digits", policy)
        for each in (one, other):
            await each.refresh()
            assert (each.of("digits").policy, each.of("digits").revision) == (policy, number)


def _unlink_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _set_and_die(path: Path) -> None:
    import anyio

    async def change() -> None:
        await Policies(Database(f"sqlite:///{path}"), DEFAULT).set("digits", SHADOW)
        os.kill(os.getpid(), signal.SIGKILL)

    anyio.run(change)


async def test_what_was_set_survives_kill_9_at_that_very_moment(opened: Opened, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_set_and_die, args=(tmp_path / "tandem.db",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    policies = opened()
    await policies.refresh()
    assert policies.of("digits").policy == SHADOW
    with closing(sqlite3.connect(tmp_path / "tandem.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_while_the_database_is_broken_the_last_policy_stays_and_the_log_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "tandem.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        policies = Policies(database, DEFAULT)
        await policies.set("digits", WEIGHTED)
        await database.run(lambda connection: connection.engine.dispose())
        _unlink_all(tmp_path)
        path.write_bytes(b"no database at all" * 100)
        with capture_logs() as logs:
            for _ in range(3):
                await policies.refresh()
            with pytest.raises(DatabaseUnavailable):
                await policies.set("digits", SHADOW)
        assert policies.of("digits").policy == WEIGHTED
        assert [line["event"] for line in logs] == ["database_away"]
        path.unlink()
        await policies.set("digits", SHADOW)
        assert policies.of("digits").policy == SHADOW


async def test_a_database_that_is_away_at_the_start_is_used_once_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with closing(Database(f"sqlite:///{folder / 'tandem.db'}")) as database:
        policies = Policies(database, DEFAULT)
        with capture_logs() as logs:
            await policies.refresh()
            with pytest.raises(DatabaseUnavailable):
                await policies.set("digits", SHADOW)
            folder.mkdir()
            await policies.refresh()
        assert [line["event"] for line in logs] == ["database_away"]
        await policies.set("digits", SHADOW)
        assert policies.of("digits").policy == SHADOW


async def test_a_policy_that_cannot_be_read_leaves_the_one_before_in_force(opened: Opened, tmp_path: Path) -> None:
    policies = opened()
    await policies.set("digits", WEIGHTED)
    with closing(sqlite3.connect(tmp_path / "tandem.db")) as connection:
        connection.execute("""UPDATE policies SET policy = '{"policy": "of a later version"}', revision = 7""")
        connection.commit()
    with capture_logs() as logs:
        await policies.refresh()
    assert policies.of("digits").policy == WEIGHTED
    assert [line["event"] for line in logs] == ["policy_unreadable"]


async def test_a_lock_that_another_process_holds_delays_and_does_not_fail(opened: Opened, tmp_path: Path) -> None:
    policies = opened()
    await policies.set("digits", WEIGHTED)
    with closing(sqlite3.connect(tmp_path / "tandem.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await policies.refresh()  # readers do not wait for a writer
        assert policies.of("digits").policy == WEIGHTED
