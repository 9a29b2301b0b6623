"""What is said of a model version, over a fake runtime."""

from __future__ import annotations

import pytest

from gateway.errors import RuntimeFailed
from gateway.health import Health
from gateway.runtimes.base import ModelRef, ModelStatus
from tests.fakes.runtimes import FakeRuntime
from tests.support.packages import digits_spec

pytestmark = pytest.mark.anyio

SPEC = digits_spec()
DIGITS = ModelRef(SPEC.name, SPEC.version)


class Clock:
    """Goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def health(fake: FakeRuntime, warm_up_requests: int = 20) -> Health:
    return Health({"torch": fake}, warm_up_requests=warm_up_requests)


async def test_a_version_is_warmed_up_once_before_it_is_called_ready() -> None:
    fake = FakeRuntime("torch")
    asked = health(fake)
    assert not asked.ready
    await asked.ask(fake, SPEC)
    await asked.ask(fake, SPEC)
    assert asked.ready
    assert fake.seen == [DIGITS] * 20


async def test_a_version_that_was_away_is_warmed_up_again() -> None:
    fake = FakeRuntime("torch")
    asked = health(fake)
    await asked.ask(fake, SPEC)
    fake.status_now = ModelStatus("unavailable", "It is away.")
    await asked.ask(fake, SPEC)
    assert asked.status("torch", DIGITS) == fake.status_now
    fake.status_now = ModelStatus("ready")
    await asked.ask(fake, SPEC)
    assert len(fake.seen) == 40


async def test_a_version_whose_worker_only_hung_is_ready_again_at_once() -> None:
    fake = FakeRuntime("torch")
    asked = health(fake)
    await asked.ask(fake, SPEC)
    fake.status_now = ModelStatus("unavailable", "It hangs.", hung=True)
    await asked.ask(fake, SPEC)
    assert asked.status("torch", DIGITS).state == "unavailable"
    fake.status_now = ModelStatus("ready")
    await asked.ask(fake, SPEC)
    assert asked.status("torch", DIGITS).state == "ready"
    assert len(fake.seen) == 20


async def test_a_version_that_hung_before_it_was_warm_is_warmed_up() -> None:
    fake = FakeRuntime("torch", status_now=ModelStatus("unavailable", "It hangs.", hung=True))
    asked = health(fake)
    await asked.ask(fake, SPEC)
    fake.status_now = ModelStatus("ready")
    await asked.ask(fake, SPEC)
    assert len(fake.seen) == 20


async def test_a_version_is_cold_until_it_has_answered_fifty_requests_and_again_when_it_was_away() -> None:
    fake = FakeRuntime("torch")
    asked = health(fake)

    def answered_while_cold() -> int:
        count = 0
        while asked.cold("torch", DIGITS):
            asked.answered("torch", DIGITS)
            count += 1
        return count

    await asked.ask(fake, SPEC)
    assert answered_while_cold() == 50
    await asked.ask(fake, SPEC)
    assert not asked.cold("torch", DIGITS)
    fake.status_now = ModelStatus("unavailable", "It is away.")
    await asked.ask(fake, SPEC)
    fake.status_now = ModelStatus("ready")
    await asked.ask(fake, SPEC)
    assert answered_while_cold() == 50
    asked.forget("torch", DIGITS)
    assert asked.cold("torch", DIGITS)


async def test_a_slow_model_is_warmed_up_for_a_few_seconds_only() -> None:
    fake = FakeRuntime("torch")
    asked = Health({"torch": fake}, warm_up_requests=1_000_000, clock=Clock())
    await asked.ask(fake, SPEC)
    assert asked.ready
    assert 0 < len(fake.seen) < 100


async def test_a_version_that_fails_while_it_is_warmed_up_is_not_ready_and_says_why() -> None:
    fake = FakeRuntime("torch", error=RuntimeFailed("It broke."))
    asked = health(fake)
    await asked.ask(fake, SPEC)
    assert not asked.ready
    assert asked.status("torch", DIGITS) == ModelStatus("unavailable", "It failed while it was warmed up: It broke.")
    fake.error = None
    await asked.ask(fake, SPEC)
    assert asked.ready


async def test_a_fault_of_ours_does_not_end_the_polling() -> None:
    fake = FakeRuntime("torch", error=ZeroDivisionError())
    asked = health(fake)
    await asked.ask(fake, SPEC)
    assert "ZeroDivisionError" in (asked.status("torch", DIGITS).reason or "")
