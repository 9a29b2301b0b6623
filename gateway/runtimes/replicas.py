"""The workers of one runtime: one for each address that its host name stands for."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from gateway.breaker import OPEN_S, STATES, Breaker
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, RuntimeFault, RuntimeUnavailable
from gateway.images.preprocess import ImageTensor
from gateway.metrics import Metrics
from gateway.runtimes.base import ModelRef, ModelStatus, Output, Runtime, State
from gateway.runtimes.warm_up import warm_up
from modelkit.spec import RuntimeName

_log = structlog.get_logger(__name__)

_RESOLVE_EVERY_S = 1.0
_LOAD_EVERY_S = 10.0
_LOAD_TIMEOUT_MS = 600_000
_BEST_FIRST: tuple[State, ...] = ("ready", "loading", "absent", "failed", "unavailable")

Resolve = Callable[[str], Awaitable[Sequence[str]]]


async def addresses_of(host: str) -> list[str]:
    """The IP addresses of `host`: its IPv4 ones where it has any, so that `localhost` is one worker. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses: dict[int, set[str]] = defaultdict(set)
    for family, *_, address in found:
        addresses[family].add(str(address[0]))
    return sorted(addresses.get(socket.AF_INET) or addresses[socket.AF_INET6])


@dataclass(eq=False)
class _Replica:
    host: str
    worker: Runtime
    inflight: int = 0
    turn: int = 0
    """When it was last given a picture: of those with equally much to do, the one that has rested longest is next."""
    serves: set[ModelRef] = field(default_factory=set)
    joining: set[ModelRef] = field(default_factory=set)
    load_again_at_s: dict[ModelRef, float] = field(default_factory=dict)
    breakers: dict[ModelRef, Breaker] = field(default_factory=lambda: defaultdict(Breaker))
    """For each model: one that a worker cannot serve must not take the others with it."""
    gone: bool = False


class Replicas:
    """A Runtime made of as many workers as there are addresses behind one host name.

    The name is resolved again every second, so that `docker compose up --scale torch_worker=2` needs nothing else. A
    picture goes to the worker with the fewest in flight, of those that said at their last `status` that they have the
    model and whose circuit lets it through. A worker that comes to others is warmed up before it gets requests.
    """

    def __init__(
        self,
        name: RuntimeName,
        host: str,
        open_worker: Callable[[str], Runtime],
        *,
        warm_up_requests: int,
        metrics: Metrics,
        resolve: Resolve = addresses_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_worker` makes the client of the worker at an IP address."""
        self.name = name
        self._host = host
        self._open_worker = open_worker
        self._warm_up_requests = warm_up_requests
        self._resolve = resolve
        self._clock = clock
        self._replicas_gauge = metrics.replicas.labels(name)
        self._breaker_gauge = metrics.breaker_state.labels(name)
        self._replicas: dict[str, _Replica] = {}
        self._looking_up = asyncio.Lock()
        self._resolve_again_at_s = 0.0
        self._why_none = ""
        self._sizes: dict[ModelRef, tuple[int, int]] = {}
        self._turns = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def replicas(self) -> int:
        return max(1, len(self._replicas))

    def allows(self, model: ModelRef) -> bool:
        return any(each.breakers[model].allows for each in self._able(model))

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        if not self._replicas:
            await self._look_up(deadline)
        replica = self._choose(model)
        breaker = replica.breakers[model]
        self._sizes[model] = (image.shape[1], image.shape[2])
        replica.turn = next(self._turns)
        replica.inflight += 1
        try:
            with breaker.call():
                return await replica.worker.infer(model, image, deadline=deadline)
        except RuntimeUnavailable:
            self._report()
            raise
        finally:
            replica.inflight -= 1
            if replica.gone and not replica.inflight:
                self._start(replica.worker.close())

    def _none_known(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"No worker of the {self.name} runtime is known. {self._why_none}")

    def _able(self, model: ModelRef) -> Sequence[_Replica]:
        # Where none is known to have it, one of them says why better than this end could.
        return [each for each in self._replicas.values() if model in each.serves] or list(self._replicas.values())

    def _choose(self, model: ModelRef) -> _Replica:
        able = self._able(model)
        if not able:
            raise self._none_known()
        allowed = [each for each in able if each.breakers[model].allows]
        if not allowed:
            raise RuntimeUnavailable(
                f"The workers of the {self.name} runtime could not answer for {model} several times in a row; they are "
                "left alone for a second. Try again later.",
                retry_after_s=OPEN_S,
            )
        return min(allowed, key=lambda each: (each.inflight, each.turn))

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
        """`ready` where at least one worker is; else the best that one of them says."""
        await self._look_up(deadline)
        replicas = list(self._replicas.values())
        if not replicas:
            return ModelStatus("unavailable", self._why_none)
        statuses = await asyncio.gather(*(self._ask(each, model, deadline) for each in replicas))
        for replica, status in zip(replicas, statuses, strict=True):
            if status.state == "ready":
                self._take_in(replica, model)
            else:
                replica.serves.discard(model)
        if any(model in each.serves for each in replicas):
            for replica, status in zip(replicas, statuses, strict=True):
                if status.state == "absent":
                    self._load_there(replica, model)
        self._report()
        return min(statuses, key=lambda status: _BEST_FIRST.index(status.state))

    async def load(self, model: ModelRef, *, deadline: Deadline) -> None:
        """Raises what the first worker raises, where all do."""
        faults = await self._everywhere(lambda worker: worker.load(model, deadline=deadline), deadline)
        if faults and len(faults) == len(self._replicas):
            raise faults[0]

    async def unload(self, model: ModelRef, *, deadline: Deadline) -> None:
        """Raises what a worker raises."""
        for replica in self._replicas.values():
            replica.serves.discard(model)
            replica.breakers.pop(model, None)
        self._sizes.pop(model, None)
        if faults := await self._everywhere(lambda worker: worker.unload(model, deadline=deadline), deadline):
            raise faults[0]

    async def scale(self, model: ModelRef, replicas: int, *, deadline: Deadline) -> None:
        """Raises what a worker raises."""
        if faults := await self._everywhere(lambda worker: worker.scale(model, replicas, deadline=deadline), deadline):
            raise faults[0]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.worker.close()

    async def _everywhere(
        self, change: Callable[[Runtime], Awaitable[None]], deadline: Deadline
    ) -> Sequence[RuntimeFault]:
        await self._look_up(deadline)
        if not self._replicas:
            return [self._none_known()]

        async def fault(worker: Runtime) -> RuntimeFault | None:
            try:
                await change(worker)
            except RuntimeFault as error:
                return error
            return None

        faults = await asyncio.gather(*(fault(each.worker) for each in self._replicas.values()))
        return [each for each in faults if each is not None]

    async def _ask(self, replica: _Replica, model: ModelRef, deadline: Deadline) -> ModelStatus:
        try:
            return await replica.worker.status(model, deadline=deadline)
        except DeadlineExceeded:
            return ModelStatus("unavailable", f"The worker of the {self.name} runtime did not answer in time.")

    async def _look_up(self, deadline: Deadline) -> None:
        """Bring the replicas up to date. Where the name cannot be resolved, those known stay."""
        async with self._looking_up:
            if self._clock() >= self._resolve_again_at_s:
                await self._resolve_again(deadline)
                self._resolve_again_at_s = self._clock() + _RESOLVE_EVERY_S

    async def _resolve_again(self, deadline: Deadline) -> None:
        try:
            async with deadline.guard():
                hosts = await self._resolve(self._host)
        except (OSError, DeadlineExceeded) as error:
            why = getattr(error, "strerror", None) or "it took too long"
            self._why_none = f"The address {self._host!r} cannot be resolved: {why}."
            return
        for host in self._replicas.keys() - set(hosts):
            self._let_go(self._replicas.pop(host))
        for host in hosts:
            if host not in self._replicas:
                self._replicas[host] = _Replica(host, self._open_worker(host))
                _log.info("replica_found", runtime=self.name, host=host)
        self._replicas_gauge.set(len(self._replicas))

    def _let_go(self, replica: _Replica) -> None:
        _log.info("replica_gone", runtime=self.name, host=replica.host)
        replica.gone = True
        if not replica.inflight:
            self._start(replica.worker.close())

    def _take_in(self, replica: _Replica, model: ModelRef) -> None:
        if model in replica.serves or model in replica.joining:
            return
        size = self._sizes.get(model)
        if size is None or not any(model in each.serves for each in self._replicas.values()):
            # The first ones are warmed up by whoever called `status`.
            replica.breakers[model].reset()
            replica.serves.add(model)
        else:
            replica.joining.add(model)
            self._start(self._join(replica, model, *size))

    async def _join(self, replica: _Replica, model: ModelRef, height: int, width: int) -> None:
        try:
            await warm_up(replica.worker, model, height=height, width=width, requests=self._warm_up_requests)
        except RuntimeFault as error:
            _log.warning(
                "replica_failed_warm_up", runtime=self.name, host=replica.host, model=str(model), reason=str(error)
            )
            return
        finally:
            replica.joining.discard(model)
        replica.breakers[model].reset()
        replica.serves.add(model)
        self._report()
        _log.info("replica_joined", runtime=self.name, host=replica.host, model=str(model))

    def _load_there(self, replica: _Replica, model: ModelRef) -> None:
        """The others have it: have this one load it, too."""
        if self._clock() < replica.load_again_at_s.get(model, 0.0):
            return
        replica.load_again_at_s[model] = self._clock() + _LOAD_EVERY_S

        async def load() -> None:
            try:
                await replica.worker.load(model, deadline=Deadline.after_ms(_LOAD_TIMEOUT_MS))
            except RuntimeFault as error:
                _log.warning("load_failed", runtime=self.name, host=replica.host, model=str(model), reason=str(error))

        self._start(load())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self) -> None:
        states = [breaker.state for each in self._replicas.values() for breaker in each.breakers.values()]
        self._breaker_gauge.set(max((STATES.index(state) for state in states), default=0))
