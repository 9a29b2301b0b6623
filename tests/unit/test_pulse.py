"""What the gateway says of its own process."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from prometheus_client import CollectorRegistry

from gateway.metrics import Metrics
from gateway.pulse import Pulse


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, name
    return found


@pytest.mark.anyio
async def test_a_task_that_does_not_end_is_counted_and_one_that_ended_is_not() -> None:
    registry = CollectorRegistry()
    pulse = Pulse(Metrics(registry))
    pulse.beat(0)
    before = value(registry, "tandem_tasks")
    held = asyncio.create_task(asyncio.Event().wait())
    pulse.beat(0)
    assert value(registry, "tandem_tasks") == before + 1
    held.cancel()
    await asyncio.wait([held])
    pulse.beat(0)
    assert value(registry, "tandem_tasks") == before


@pytest.mark.anyio
async def test_an_open_socket_and_the_memory_are_counted() -> None:
    registry = CollectorRegistry()
    pulse = Pulse(Metrics(registry))
    pulse.beat(0)
    before = value(registry, "process_open_fds")
    with socket.socket():
        pulse.beat(0)
        assert value(registry, "process_open_fds") == before + 1
    assert value(registry, "process_resident_memory_bytes") > os.sysconf("SC_PAGE_SIZE")


@pytest.mark.anyio
async def test_the_lag_is_what_the_event_loop_was_late_and_never_less_than_nothing() -> None:
    registry = CollectorRegistry()
    pulse = Pulse(Metrics(registry))
    pulse.beat(-0.001)
    pulse.beat(0.03)
    assert value(registry, "tandem_event_loop_lag_seconds_sum") == 0.03
    assert value(registry, "tandem_event_loop_lag_seconds_bucket", le="0.001") == 1
    assert value(registry, "tandem_event_loop_lag_seconds_bucket", le="0.05") == 2
