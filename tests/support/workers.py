"""Several workers as one runtime, over fake ones and a clock that stands still."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
from prometheus_client import CollectorRegistry

from gateway.deadline import Deadline
from gateway.metrics import Metrics
from gateway.runtimes.addresses import Addresses, Resolve
from gateway.runtimes.base import ModelRef, ModelStatus
from gateway.runtimes.replicas import Replicas
from gateway.settings import TorchSettings
from tests.fakes.runtimes import FakeRuntime
from tests.support.packages import digits_spec

DIGITS = ModelRef("digits", 1)
PICTURE = np.zeros((1, 32, 32, 3), np.uint8)
WARM_UP_REQUESTS = 12


class Workers:
    """Fakes by address, the names they answer to, and the clock."""

    def __init__(self, *hosts: str) -> None:
        self.hosts: list[str] = list(hosts)
        self.fakes: dict[str, FakeRuntime] = {}
        self.now_s = 0.0
        self.seconds: dict[str, float] = {}
        """What a picture takes, by address."""
        self.resolving: asyncio.Event | None = None
        """Where it is there, names are resolved when it is set."""
        self.use("torch-worker:7070", self.resolve)

    def use(self, address: str, resolve: Resolve) -> None:
        """Begin anew with these addresses."""
        self.registry = CollectorRegistry()
        self.replicas = Replicas(
            "torch",
            Addresses(TorchSettings(address=address), resolve=resolve, clock=self.clock),
            self.open,
            spec_of={DIGITS: digits_spec()}.get,
            warm_up_requests=WARM_UP_REQUESTS,
            metrics=Metrics(self.registry),
            patience_s=0.0,
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now_s

    def open(self, settings: TorchSettings) -> FakeRuntime:
        self.fakes[settings.host] = FakeRuntime("torch", called=self.takes)
        return self.fakes[settings.host]

    def takes(self) -> None:
        """What is moved in a call is what it takes."""
        for host, fake in self.fakes.items():
            if fake.running:
                self.now_s += self.seconds.get(host, 0.0)

    async def resolve(self, name: str) -> list[str]:
        assert name == "torch-worker"
        if self.resolving is not None:
            await self.resolving.wait()
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.hosts

    async def status(self) -> ModelStatus:
        """As the gateway asks, once a second; what that has begun is done."""
        self.now_s += 1
        status = await self.replicas.status(DIGITS, deadline=soon())
        while self.replicas._tasks:
            await asyncio.gather(*self.replicas._tasks)
        return status

    async def infer(self, count: int = 1) -> None:
        for _ in range(count):
            await self.replicas.infer(DIGITS, PICTURE, deadline=soon())

    def seen(self) -> dict[str, int]:
        return {host: len(fake.seen) for host, fake in self.fakes.items()}

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"runtime": "torch"} | labels)

    def ejections(self, reason: str) -> float | None:
        return self.metric("tandem_replica_ejections_total", reason=reason)

    def hang(self, host: str) -> asyncio.Event:
        """It accepts everything and answers nothing, until the event."""
        event = asyncio.Event()
        self.fakes[host].hold = self.fakes[host].hold_status = event
        return event


def soon() -> Deadline:
    return Deadline.after_ms(5_000)
