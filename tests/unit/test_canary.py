"""Canaries on one database: who moves them, on what, and what holds over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from evidence.document import Target
from gateway.errors import DatabaseUnavailable, StatisticsUnavailable
from gateway.lease import LEASE_S
from gateway.progress import KEPT_EVENTS
from gateway.routing import Canary, Fixed
from gateway.routing import Target as Named
from modelkit import lifecycle
from tests.support.canaries import Gateway, Statistics
from tests.support.clock import Clock
from tests.support.comparisons import UNKNOWN
from tests.support.packages import detector_spec, write_packages, write_store

pytestmark = pytest.mark.anyio

CANARY: dict[str, Any] = {
    "policy": "canary", "from": "torch@1", "to": "tf@2", "steps": [0.1, 0.5, 1.0], "hold_s": 60, "sample_rate": 0.2,
}  # fmt: skip
SLOWER = {"paired": (0.5, 0.4, 0.6)}


Open = Callable[[], Gateway]


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def statistics() -> Statistics:
    return Statistics()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock, statistics: Statistics) -> Iterator[Open]:
    """Starts another gateway process, as far as canaries are concerned."""
    write_store(tmp_path / "store", 1, 2)
    with ExitStack() as stack:
        yield lambda: Gateway(tmp_path, stack, clock, statistics)


@pytest.fixture
async def gateway(opened: Open, clock: Clock) -> Gateway:
    """One with a canary that has just begun."""
    gateway = opened()
    await gateway.policies.set("digits", Canary.model_validate(CANARY))
    clock.now_s = gateway.progress.since
    return gateway


async def test_a_canary_goes_step_by_step_each_time_its_guards_have_held_to_the_end(
    gateway: Gateway, statistics: Statistics, clock: Clock
) -> None:
    assert gateway.at == (0, "running")
    places: list[tuple[int, str]] = []
    for _ in range(4):
        began = gateway.progress.since
        clock.now_s += 59
        await gateway.look()
        assert gateway.progress.why.startswith("holding until ")
        assert statistics.asked[-1] == (
            "digits", Target(runtime="torch", version=1), Target(runtime="tf", version=2), began,
        )  # fmt: skip
        places.append(gateway.at)
        clock.now_s += 1
        await gateway.look()
        if gateway.at[1] == "promoted":
            break
        assert gateway.progress.since == clock.now_s
    assert places == [(0, "running"), (1, "running"), (2, "running")]
    assert gateway.at == (2, "promoted")
    asked = len(statistics.asked)
    await gateway.look()
    assert len(statistics.asked) == asked
    assert gateway.value("tandem_canary_decisions_total", action="promote") == 3
    assert gateway.value("tandem_canary_share") == 1.0
    events = await gateway.policies.history("digits", 10)
    assert [(event.step, event.action) for event in events] == [
        (2, "promote"), (2, "promote"), (1, "promote"), (0, "start"),
    ]  # fmt: skip
    assert events[1].why.startswith("tf@2 answers 1 of the requests: tf@2 takes 0.8 times as long as torch@1")
    assert events[0].why.startswith("tf@2 stays: ")


async def test_a_broken_guard_ends_it_at_once_with_its_reason_for_good(
    gateway: Gateway, statistics: Statistics, clock: Clock
) -> None:
    clock.now_s += 60
    await gateway.look()
    statistics.figures = SLOWER
    clock.now_s += 1
    await gateway.look()
    assert gateway.at == (1, "rolled_back")
    assert gateway.progress.why.startswith("tf@2 takes 2 times as long as torch@1")
    assert gateway.value("tandem_canary_share") == 0.0
    assert gateway.value("tandem_canary_decisions_total", action="roll_back") == 1
    (event, *_) = await gateway.policies.history("digits", 10)
    assert (event.action, event.step, event.why) == ("roll_back", 1, gateway.progress.why)
    statistics.figures = {}
    clock.now_s += 1000
    await gateway.look()
    assert gateway.at == (1, "rolled_back")


@pytest.mark.parametrize("error", [StatisticsUnavailable("They are away. Try again later."), None], ids=["away", "few"])
async def test_without_enough_evidence_it_waits_however_long(
    gateway: Gateway, statistics: Statistics, clock: Clock, error: Exception | None
) -> None:
    statistics.error = error
    statistics.figures = {"paired": UNKNOWN}
    for _ in range(3):
        clock.now_s += 10_000
        await gateway.look()
    assert gateway.at == (0, "running")
    assert gateway.progress.why == (
        "waiting for statistics: They are away. Try again later."
        if error
        else "waiting: too few effective samples for the latency: about 250 more pairs"
    )
    assert len(await gateway.policies.history("digits", 10)) == 1
    statistics.error, statistics.figures = None, {}
    await gateway.look()
    assert gateway.at == (1, "running")


async def test_a_fault_with_one_models_canary_is_logged_and_keeps_no_other_from_moving(
    gateway: Gateway, statistics: Statistics, clock: Clock, tmp_path: Path
) -> None:
    write_packages(tmp_path / "store", detector_spec())
    await gateway.catalogue.refresh()
    await gateway.policies.set("shapes", Canary.model_validate(CANARY | {"from": "torch", "to": "tf"}))
    statistics.error, statistics.well = RuntimeError("A fault of ours."), {"shapes"}
    clock.now_s += 1000
    with capture_logs() as logs:
        await gateway.look()
    assert [(line["event"], line["model"]) for line in logs if line["log_level"] == "error"] == [
        ("canary_not_looked_at", "digits")
    ]
    moved = gateway.policies.of("shapes").progress
    assert (gateway.at, moved and moved.step) == ((0, "running"), 1)


async def test_a_gateway_without_statistics_says_so_and_promotes_nothing(tmp_path: Path, clock: Clock) -> None:
    write_store(tmp_path / "store", 1, 2)
    with ExitStack() as stack:
        gateway = Gateway(tmp_path, stack, clock, None)
        await gateway.policies.set("digits", Canary.model_validate(CANARY))
        clock.now_s += 10_000
        await gateway.look()
        assert (gateway.at, gateway.progress.why) == ((0, "running"), "waiting: this gateway has no statistics")


@pytest.mark.parametrize(
    ("outcomes", "columns", "at"),
    [
        ({"runtime_failed": 11, "ok": 9}, {}, (0, "rolled_back")),
        ({"deadline_exceeded": 10, "runtime_unavailable": 10}, {"role": "shadow"}, (0, "rolled_back")),
        ({"runtime_failed": 10, "ok": 10}, {}, (0, "running")),
        ({"runtime_failed": 19}, {}, (0, "running")),
        ({"cancelled": 50, "dropped": 50, "overloaded": 50}, {}, (0, "running")),
        ({"runtime_failed": 50}, {"runtime": "torch", "version": 1}, (0, "running")),
        ({"runtime_failed": 50}, {"version": 1}, (0, "running")),
        ({"runtime_failed": 50}, {"model": "shapes"}, (0, "running")),
        ({"runtime_failed": 50}, {"policy": "named"}, (0, "running")),
        ({"runtime_failed": 50}, {"role": "failover"}, (0, "running")),
        ({"runtime_failed": 50}, {"role": "hedge"}, (0, "running")),
        ({"runtime_failed": 50}, {"before": True}, (0, "running")),
    ],
    ids=[
        "most fail", "all shadows fail", "half fail", "few", "no failures", "from fails", "another version",
        "another model", "no canary's", "as failovers", "as hedges", "before the step",
    ],
)  # fmt: skip
async def test_a_target_that_mostly_fails_is_rolled_back_without_statistics(
    gateway: Gateway, statistics: Statistics, outcomes: dict[str, int], columns: dict[str, Any], at: tuple[int, str]
) -> None:
    statistics.error = StatisticsUnavailable("They are away.")
    moment = gateway.progress.since + (-1 if columns.pop("before", False) else 1)
    await gateway.write(outcomes, time=moment, **columns)
    await gateway.look()
    assert gateway.at == at
    if at[1] == "rolled_back":
        failed = sum(count for outcome, count in outcomes.items() if outcome != "ok")
        assert gateway.progress.why == f"tf@2 failed {failed} of its last 20 requests"


async def test_a_target_that_begins_to_fail_after_long_is_noticed_by_its_newest_requests(gateway: Gateway) -> None:
    await gateway.write({"ok": 5000}, time=gateway.progress.since + 1)
    await gateway.write({"runtime_failed": 51}, time=gateway.progress.since + 2)
    await gateway.look()
    assert gateway.progress.why == "tf@2 failed 51 of its last 100 requests"


async def test_when_the_new_version_goes_away_it_is_rolled_back_and_when_the_old_one_does_it_waits(
    gateway: Gateway, tmp_path: Path, clock: Clock
) -> None:
    clock.now_s += 60
    lifecycle.set_default(tmp_path / "store", "digits", 2)
    lifecycle.retire(tmp_path / "store", "digits", 1)
    await gateway.catalogue.refresh()
    await gateway.look()
    assert gateway.at == (0, "running")
    assert gateway.progress.why.startswith("waiting: the version of torch@1 is gone")
    await gateway.policies.set("digits", Canary.model_validate(CANARY | {"from": "torch", "to": "tf@1"}))
    await gateway.look()
    assert gateway.at == (0, "running")  # another process may know a version that this one will see in a moment
    await gateway.look()
    assert (gateway.at, gateway.progress.why) == ((0, "rolled_back"), "the version of tf@1 is gone")


async def test_a_default_version_that_becomes_the_same_as_the_new_one_is_no_evidence(
    gateway: Gateway, tmp_path: Path, clock: Clock
) -> None:
    lifecycle.set_default(tmp_path / "store", "digits", 1)
    await gateway.catalogue.refresh()
    await gateway.policies.set("digits", Canary.model_validate(CANARY | {"from": "tf", "to": "tf@2"}))
    lifecycle.set_default(tmp_path / "store", "digits", 2)
    await gateway.catalogue.refresh()
    gateway.catalogue.settle("digits", 2)
    clock.now_s += 1000
    await gateway.look()
    assert (gateway.at, gateway.progress.why) == ((0, "running"), "waiting: tf and tf@2 are the same version now")


async def test_of_two_gateways_one_moves_and_the_other_follows(
    gateway: Gateway, opened: Open, statistics: Statistics, clock: Clock
) -> None:
    other = opened()
    for _ in range(3):
        clock.now_s += LEASE_S / 2
        await gateway.look()
        await other.look()
    assert len(statistics.asked) == 3
    clock.now_s += 60
    await gateway.look()
    await other.look()
    assert gateway.at == other.at == (1, "running")
    assert gateway.progress == other.progress
    assert other.value("tandem_canary_share") == 0.5
    assert gateway.value("tandem_canary_decisions_total", action="promote") == 1
    assert other.value("tandem_canary_decisions_total", action="promote") == 0
    assert len(await gateway.policies.history("digits", 10)) == 2


async def test_when_the_leader_is_killed_another_takes_over_after_its_lease_and_at_once_when_it_stops(
    gateway: Gateway, opened: Open, statistics: Statistics, clock: Clock
) -> None:
    other = opened()
    clock.now_s += 60
    statistics.figures = {"paired": UNKNOWN}
    await gateway.look()  # and is killed
    statistics.figures = {}
    clock.now_s += LEASE_S - 0.1
    await other.look()
    assert other.at == (0, "running")
    clock.now_s += 0.2
    await other.look()
    assert other.at == (1, "running")
    await other.canaries.close()
    third = opened()
    clock.now_s += 60
    await third.look()
    assert third.at == (2, "running")


async def test_two_that_both_take_themselves_for_the_leader_move_once(
    gateway: Gateway, opened: Open, statistics: Statistics, clock: Clock
) -> None:
    other = opened()
    clock.now_s += 60

    async def lose_the_lease() -> None:
        clock.now_s += LEASE_S + 1
        await other.look()

    statistics.meanwhile = lose_the_lease
    await gateway.look()
    assert other.at == (1, "running")
    assert len(await other.policies.history("digits", 10)) == 2
    await gateway.policies.refresh()
    assert gateway.progress == other.progress
    assert gateway.value("tandem_canary_decisions_total", action="promote") == 0


async def test_a_policy_that_is_set_while_a_decision_is_made_is_not_moved_by_it(
    gateway: Gateway, opened: Open, statistics: Statistics, clock: Clock
) -> None:
    other = opened()

    async def set_it_again() -> None:
        await other.policies.set("digits", Canary.model_validate(CANARY | {"hold_s": 1000}))

    clock.now_s += 60
    statistics.meanwhile = set_it_again
    statistics.figures = SLOWER
    await gateway.look()
    await gateway.policies.refresh()
    assert gateway.at == (0, "running")
    assert [event.action for event in await gateway.policies.history("digits", 10)] == ["start", "start"]


async def test_its_step_holds_over_a_restart_and_a_new_canary_begins_at_the_first(
    gateway: Gateway, opened: Open, clock: Clock
) -> None:
    clock.now_s += 60
    await gateway.look()
    again = opened()
    await again.policies.refresh()
    assert again.progress == gateway.progress
    assert again.at == (1, "running")
    await again.policies.set("digits", Canary.model_validate(CANARY))
    assert again.at == (0, "running")
    await gateway.policies.refresh()
    assert gateway.at == (0, "running")


async def test_another_policy_ends_it_and_keeps_its_history_bounded(gateway: Gateway) -> None:
    for _ in range(KEPT_EVENTS + 5):
        await gateway.policies.set("digits", Canary.model_validate(CANARY))
    await gateway.look()
    await gateway.policies.set("digits", Fixed(policy="fixed", target=Named("tf", 2)))
    await gateway.look()
    assert gateway.policies.of("digits").progress is None
    assert gateway.policies.canaries() == []
    assert gateway.value("tandem_canary_share") is None
    events = await gateway.policies.history("digits", 1000)
    assert len(events) == KEPT_EVENTS
    assert events[0].revision == KEPT_EVENTS + 6
    assert await gateway.policies.history("shapes", 10) == []


def break_database(folder: Path) -> None:
    for path in folder.glob("tandem.db*"):
        path.unlink()
    (folder / "tandem.db").write_bytes(b"no database at all" * 100)


async def test_while_the_database_is_away_nothing_moves_and_the_last_share_stays(
    gateway: Gateway, tmp_path: Path, clock: Clock
) -> None:
    clock.now_s += 60
    await gateway.database.run(lambda connection: connection.engine.dispose())
    break_database(tmp_path)
    with pytest.raises(DatabaseUnavailable):
        await gateway.canaries.look()
    assert gateway.at == (0, "running")
    await gateway.canaries.close()
