"""The real workers of a stack, the gateways that reach them in several ways, and the faults."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import httpx
import psutil

from gateway.deadline import Deadline
from gateway.errors import RuntimeFault
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import TfSettings, TorchSettings
from loadtests.faults.load import PATIENCE_S
from modelkit.spec import RUNTIME_NAMES, RuntimeName
from tests.fakes.proxy import SPOILT, Proxy
from tests.support.stack import HOST, ROOT, Stack, free_ports

Fault = str
OF_PROCESS: tuple[Fault, ...] = ("killed", "restarted", "hung")
OF_PROXY: tuple[Fault, ...] = ("port closed", *SPOILT)
FAULTS = (*OF_PROCESS, *OF_PROXY)

DIGITS = ModelRef("digits", 1)
_START_PATIENCE_S = 90.0


@dataclass(frozen=True)
class Way:
    """A gateway, and the proxies through which it reaches the workers, if any."""

    client: httpx.AsyncClient
    proxies: Mapping[RuntimeName, Proxy]
    """Of each runtime, the one to which faults happen."""


class Worker:
    """One runtime's real worker, looked at without the gateway."""

    def __init__(self, runtime: RuntimeName, stack: Stack) -> None:
        self.runtime = runtime
        self._stack = stack
        environment = stack.environment
        self._watcher: Runtime = (
            TorchRuntime(
                TorchSettings(
                    address=environment["TANDEM_TORCH__ADDRESS"],
                    management_address=environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"],
                )
            )
            if runtime == "torch"
            else TfRuntime(TfSettings(address=environment["TANDEM_TF__ADDRESS"]), stack.var / "serving" / "tf")
        )
        self._stopped: list[psutil.Process] = []

    async def close(self) -> None:
        self._resume()
        await self._watcher.close()

    async def strike(self, fault: Fault, way: Way) -> None:
        """Make the fault."""
        match fault:
            case "killed" | "restarted":
                # The supervisor of the stack starts it again.
                os.kill(self._stack.pid(self.runtime), signal.SIGKILL if fault == "killed" else signal.SIGTERM)
            case "hung":
                worker = psutil.Process(self._stack.pid(self.runtime))
                self._stopped = [worker, *worker.children(recursive=True)]
                for process in self._stopped:
                    process.suspend()
            case "port closed":
                await way.proxies[self.runtime].shut()
            case _:
                way.proxies[self.runtime].spoil = fault

    async def mend(self, fault: Fault, way: Way) -> float:
        """Undo the fault; when the worker was back, by the monotonic clock.

        One that started anew is back once it says itself that it serves the model.
        """
        match fault:
            case "killed" | "restarted":
                await until(self._serves, f"the {self.runtime} worker is back")
            case "hung":
                self._resume()
            case "port closed":
                await way.proxies[self.runtime].open()
            case _:
                way.proxies[self.runtime].spoil = None
        return time.monotonic()

    def _resume(self) -> None:
        while self._stopped:
            with suppress(psutil.NoSuchProcess):
                self._stopped.pop().resume()

    async def _serves(self) -> bool:
        with suppress(RuntimeFault):
            return (await self._watcher.status(DIGITS, deadline=Deadline.after_ms(1000))).state == "ready"
        return False


@dataclass(frozen=True)
class Scene:
    workers: Mapping[RuntimeName, Worker]
    direct: Way
    single: Way
    """Each worker behind a proxy."""
    pair: Way
    """Each worker behind two proxies: to the gateway they are two workers."""


@asynccontextmanager
async def scene_of(stack: Stack) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as held:
        workers = {name: Worker(name, stack) for name in RUNTIME_NAMES}
        for worker in workers.values():
            held.push_async_callback(worker.close)
        direct = Way(await held.enter_async_context(_client(stack, stack.url)), {})
        yield Scene(workers, direct, await _proxied(stack, held, 1), await _proxied(stack, held, 2))


async def _proxied(stack: Stack, held: AsyncExitStack, count: int) -> Way:
    """A gateway that reaches each worker through so many proxies."""
    moved, proxies = {}, {}
    for name in ("TORCH__ADDRESS", "TORCH__MANAGEMENT_ADDRESS", "TF__ADDRESS"):
        ports = free_ports(count)
        moved[f"TANDEM_{name}"] = ",".join(f"{HOST}:{port}" for port in ports)
        proxies[name] = [Proxy(stack.environment[f"TANDEM_{name}"], port) for port in ports]
        for proxy in proxies[name]:
            held.push_async_callback(proxy.close)
            await proxy.open()
    (port,) = free_ports(1)
    log = held.enter_context((stack.var / f"gateway-{count}.log").open("wb"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"),
        env=stack.environment | moved | {"TANDEM_HTTP__PORT": str(port)},
        cwd=ROOT,
        stdout=log,
        stderr=asyncio.subprocess.STDOUT,
    )
    held.push_async_callback(process.wait)
    held.callback(process.terminate)
    client = await held.enter_async_context(_client(stack, f"http://{HOST}:{port}"))
    return Way(client, {"torch": proxies["TORCH__ADDRESS"][0], "tf": proxies["TF__ADDRESS"][0]})


def _client(stack: Stack, url: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {(stack.var / 'admin.key').read_text().strip()}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S)


async def until(wanted: Callable[[], Awaitable[bool]], what: str, *, patience_s: float = _START_PATIENCE_S) -> None:
    """Raises TimeoutError with `what` was waited for."""
    begin_s = time.monotonic()
    while not await wanted():
        if time.monotonic() - begin_s > patience_s:
            raise TimeoutError(f"Not after {patience_s:g} s: {what}.")
        await asyncio.sleep(0.05)


async def ready(client: httpx.AsyncClient) -> bool:
    """Whether both runtimes can answer for `digits`."""
    try:
        models = (await client.get("/readyz")).json()["models"]
    except httpx.TransportError:
        return False
    states = models.get("digits", {})
    return {states.get(name, {}).get("state") for name in RUNTIME_NAMES} == {"ready"}
