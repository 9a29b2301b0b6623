"""The real workers of a stack, a gateway that reaches them through proxies, and the faults of both."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import httpx
import psutil

from gateway.deadline import Deadline
from gateway.errors import RuntimeFault
from gateway.runtimes.base import ModelRef, Runtime
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import TfSettings, TorchSettings
from modelkit.spec import RuntimeName
from tests.fakes.proxy import Proxy, Spoil
from tests.support.stack import HOST, ROOT, Stack, free_ports

Fault = str
SPOILT: tuple[Spoil, ...] = ("slow", "errors", "wrong shape", "wrong type")
PROXIED: tuple[Fault, ...] = ("port closed", *SPOILT)
FAULTS: tuple[Fault, ...] = ("killed", "restarted", "hung", *PROXIED)

DIGITS = ModelRef("digits", 1)
_PATIENCE_S = 90.0


class Worker:
    """One runtime's real worker, its proxy, and a look at it that the gateway has no part in."""

    def __init__(self, runtime: RuntimeName, stack: Stack, proxy: Proxy) -> None:
        self.runtime = runtime
        self._stack = stack
        self._proxy = proxy
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
        await self._watcher.close()

    async def strike(self, fault: Fault) -> None:
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
                await self._proxy.shut()
            case "slow" | "errors" | "wrong shape" | "wrong type":
                self._proxy.spoil = fault

    async def mend(self, fault: Fault) -> float:
        """Undo the fault; when the worker was back, by the monotonic clock.

        One that started anew is back once it says itself that it serves the model.
        """
        match fault:
            case "killed" | "restarted":
                return await self._until_ready()
            case "hung":
                while self._stopped:
                    with suppress(psutil.NoSuchProcess):
                        self._stopped.pop().resume()
            case "port closed":
                await self._proxy.open()
            case _:
                self._proxy.spoil = None
        return time.monotonic()

    async def _until_ready(self) -> float:
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < _PATIENCE_S:
            with suppress(RuntimeFault):
                if (await self._watcher.status(DIGITS, deadline=Deadline.after_ms(1000))).state == "ready":
                    return time.monotonic()
            await asyncio.sleep(0.05)
        raise TimeoutError(f"The {self.runtime} worker is not back after {_PATIENCE_S:g} s.")


@asynccontextmanager
async def workers_of(stack: Stack) -> AsyncIterator[tuple[Mapping[RuntimeName, Worker], str]]:
    """The workers, and the URL of a second gateway that reaches them through the proxies."""
    environment = stack.environment
    torch_port, management_port, tf_port, http_port = free_ports(4)
    torch = Proxy(environment["TANDEM_TORCH__ADDRESS"], torch_port)
    management = Proxy(environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"], management_port)
    tf = Proxy(environment["TANDEM_TF__ADDRESS"], tf_port)
    workers: Mapping[RuntimeName, Worker] = {"torch": Worker("torch", stack, torch), "tf": Worker("tf", stack, tf)}
    for proxy in (torch, management, tf):
        await proxy.open()
    moved = {
        "TANDEM_HTTP__PORT": str(http_port),
        "TANDEM_TORCH__ADDRESS": f"{HOST}:{torch_port}",
        "TANDEM_TORCH__MANAGEMENT_ADDRESS": f"{HOST}:{management_port}",
        "TANDEM_TF__ADDRESS": f"{HOST}:{tf_port}",
    }
    with (stack.var / "proxied.log").open("wb") as log:
        command = [sys.executable, "-m", "gateway"]
        process = await asyncio.create_subprocess_exec(
            *command, env=environment | moved, cwd=ROOT, stdout=log, stderr=asyncio.subprocess.STDOUT
        )
        try:
            yield workers, f"http://{HOST}:{http_port}"
        finally:
            process.terminate()
            await process.wait()
            for worker in workers.values():
                await worker.close()
            for proxy in (torch, management, tf):
                await proxy.close()


async def until(wanted: Callable[[], Awaitable[bool]], what: str, *, patience_s: float = _PATIENCE_S) -> None:
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
    return {states.get(name, {}).get("state") for name in ("torch", "tf")} == {"ready"}
