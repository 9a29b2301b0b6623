"""Several workers as one runtime, over fake ones."""

from __future__ import annotations

import asyncio

import pytest

from gateway.breaker import FAILURES
from gateway.errors import RuntimeFailed, RuntimeUnavailable
from gateway.runtimes.addresses import addresses_of
from gateway.runtimes.base import ModelStatus
from gateway.settings import TfSettings, TorchSettings
from tests.support.workers import DIGITS, WARM_UP_REQUESTS, Workers, soon

pytestmark = pytest.mark.anyio

AWAY = ModelStatus("unavailable", "It is away.")


async def test_pictures_are_spread_over_all_workers() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    assert (await workers.status()).state == "ready"
    await workers.infer(10)
    assert workers.seen() == {"10.0.0.1": 5, "10.0.0.2": 5}
    assert workers.metric("tandem_replicas") == 2


async def test_a_busy_worker_gets_fewer() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    await workers.status()
    workers.fakes["10.0.0.1"].hold = asyncio.Event()
    slow = asyncio.create_task(workers.infer())
    await asyncio.sleep(0)
    await workers.infer(5)
    assert workers.seen() == {"10.0.0.1": 1, "10.0.0.2": 5}
    workers.fakes["10.0.0.1"].hold.set()
    await slow


async def test_a_worker_that_comes_later_is_warmed_up_before_it_gets_requests() -> None:
    workers = Workers("10.0.0.1")
    await workers.status()
    await workers.infer(4)
    workers.hosts.append("10.0.0.2")
    await workers.status()
    assert workers.seen() == {"10.0.0.1": 4, "10.0.0.2": WARM_UP_REQUESTS}
    await workers.infer(4)
    assert workers.seen() == {"10.0.0.1": 6, "10.0.0.2": WARM_UP_REQUESTS + 2}


async def test_a_worker_that_fails_its_warm_up_gets_no_requests_and_is_tried_again() -> None:
    workers = Workers("10.0.0.1")
    await workers.status()
    await workers.infer()
    workers.hosts.append("10.0.0.2")
    workers.now_s += 1
    await workers.replicas._look_up(soon())
    workers.fakes["10.0.0.2"].error = RuntimeFailed("It is broken.")
    await workers.status()
    begun = len(workers.fakes["10.0.0.2"].seen)
    await workers.infer(4)
    assert workers.seen() == {"10.0.0.1": 5, "10.0.0.2": begun}
    workers.fakes["10.0.0.2"].error = None
    await workers.status()
    await workers.infer(2)
    assert workers.seen() == {"10.0.0.1": 6, "10.0.0.2": begun + WARM_UP_REQUESTS + 1}


async def test_a_worker_that_says_it_is_not_ready_gets_no_requests() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    await workers.status()
    workers.fakes["10.0.0.1"].status_now = AWAY
    assert (await workers.status()).state == "ready"
    await workers.infer(4)
    assert workers.seen() == {"10.0.0.1": 0, "10.0.0.2": 4}


async def test_a_worker_whose_address_is_gone_gets_no_requests_and_is_closed_when_it_has_answered() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    await workers.status()
    gone = workers.fakes["10.0.0.1"]
    gone.hold = asyncio.Event()
    last = asyncio.create_task(workers.infer())
    await asyncio.sleep(0)
    workers.hosts.remove("10.0.0.1")
    await workers.status()
    await workers.infer(3)
    assert workers.seen() == {"10.0.0.1": 1, "10.0.0.2": 3}
    assert not gone.closed
    gone.hold.set()
    await last
    await workers.status()
    assert gone.closed
    assert workers.metric("tandem_replicas") == 1


async def test_failures_in_a_row_keep_requests_from_a_worker_until_its_status_says_otherwise() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    await workers.status()
    workers.fakes["10.0.0.1"].error = RuntimeUnavailable("It is away.")
    failed = 0
    for _ in range(4 * FAILURES):
        try:
            await workers.infer()
        except RuntimeUnavailable:
            failed += 1
    assert failed == FAILURES
    assert workers.metric("tandem_breaker_state") == 2
    workers.fakes["10.0.0.1"].status_now = AWAY
    await workers.status()
    workers.fakes["10.0.0.1"].status_now = ModelStatus("ready")
    workers.fakes["10.0.0.1"].error = None
    await workers.status()
    assert workers.metric("tandem_breaker_state") == 0
    before = workers.seen()["10.0.0.1"]
    await workers.infer(4)
    assert workers.seen()["10.0.0.1"] == before + 2


async def test_with_every_circuit_open_the_answer_comes_without_a_call() -> None:
    workers = Workers("10.0.0.1")
    await workers.status()
    workers.fakes["10.0.0.1"].error = RuntimeUnavailable("It is away.")
    for _ in range(FAILURES):
        with pytest.raises(RuntimeUnavailable, match="It is away"):
            await workers.infer()
    with pytest.raises(RuntimeUnavailable, match="do not answer for digits version 1"):
        await workers.infer()
    assert workers.seen() == {"10.0.0.1": FAILURES}


async def test_a_model_that_one_worker_lacks_is_loaded_there_while_the_others_serve_it() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    await workers.status()
    lacking = workers.fakes["10.0.0.2"]
    lacking.statuses[DIGITS] = ModelStatus("absent", "It does not have it.")
    assert (await workers.status()).state == "ready"
    assert lacking.loads == [DIGITS]
    assert (await workers.status()).state == "ready"
    await workers.infer(4)
    assert len(lacking.seen) >= 2


async def test_a_load_succeeds_where_one_worker_takes_it_and_an_unload_only_where_all_do() -> None:
    workers = Workers("10.0.0.1", "10.0.0.2")
    await workers.status()
    workers.fakes["10.0.0.1"].load_error = RuntimeFailed("It cannot.")
    await workers.replicas.load(DIGITS, deadline=soon())
    with pytest.raises(RuntimeFailed, match="It cannot"):
        await workers.replicas.unload(DIGITS, deadline=soon())
    assert workers.fakes["10.0.0.2"].unloads == [DIGITS]
    workers.fakes["10.0.0.2"].load_error = RuntimeFailed("Neither can it.")
    with pytest.raises(RuntimeFailed, match="It cannot"):
        await workers.replicas.load(DIGITS, deadline=soon())


async def test_a_name_that_cannot_be_resolved_is_said_and_takes_away_no_worker() -> None:
    workers = Workers()
    status = await workers.status()
    assert status.state == "unavailable"
    assert status.reason == "The address 'torch-worker' cannot be resolved: Name or service not known."
    with pytest.raises(RuntimeUnavailable, match="cannot be resolved"):
        await workers.infer()
    workers.hosts = ["10.0.0.1"]
    await workers.status()
    workers.hosts = []
    assert (await workers.status()).state == "ready"
    await workers.infer()


async def test_localhost_is_one_worker() -> None:
    assert await addresses_of("localhost") == ["127.0.0.1"]
    assert await addresses_of("127.0.0.1") == ["127.0.0.1"]
    assert await addresses_of("::1") == ["::1"]


async def test_a_list_may_mix_addresses_and_names_and_one_that_cannot_be_resolved_takes_none_of_the_others() -> None:
    names = {"torch-worker": ["10.0.0.1", "10.0.0.2"], "gone": []}
    workers = Workers()

    async def resolve(name: str) -> list[str]:
        return (names | {"10.0.0.9": ["10.0.0.9"]})[name] or await workers.resolve("torch-worker")

    workers.use("torch-worker:7070,10.0.0.9:7171,gone:7070", resolve)
    assert (await workers.status()).state == "ready"
    assert sorted(workers.fakes) == ["10.0.0.1", "10.0.0.2", "10.0.0.9"]
    names["torch-worker"].pop()
    await workers.status()
    assert workers.metric("tandem_replicas") == 2


async def test_a_name_that_cannot_be_one_is_said_to_be_wrong() -> None:
    workers = Workers()
    workers.use("torch..worker:7070", addresses_of)
    status = await workers.status()
    assert status == ModelStatus("unavailable", "The address 'torch..worker' cannot be resolved: it is no valid name.")
    await workers.replicas.close()


async def test_a_resolver_that_hangs_delays_neither_requests_nor_a_status_for_long() -> None:
    workers = Workers("10.0.0.1")
    await workers.status()
    workers.resolving = asyncio.Event()
    async with asyncio.timeout(5):
        assert (await workers.status()).state == "ready"
        await workers.infer()
    workers.resolving.set()
    workers.hosts.append("10.0.0.2")
    await workers.status()
    await workers.status()
    assert workers.metric("tandem_replicas") == 2
    await workers.replicas.close()


def test_the_settings_of_one_worker_keep_its_ports() -> None:
    torch = TorchSettings(address="torch-worker:7070", management_address="torch-worker:7071")
    assert torch.host == "torch-worker"
    assert (torch.at("10.0.0.7").address, torch.at("10.0.0.7").management_address) == ("10.0.0.7:7070", "10.0.0.7:7071")
    elsewhere = TorchSettings(address="torch-worker:7070", management_address="proxy:7071")
    assert elsewhere.at("10.0.0.7").management_address == "proxy:7071"
    tf = TfSettings(address="[::1]:8500")
    assert tf.host == "::1"
    assert tf.at("fd00::7").address == "[fd00::7]:8500"
