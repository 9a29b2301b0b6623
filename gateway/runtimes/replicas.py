"""The workers of one runtime: one for each address that its settings stand for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic

import structlog

from gateway.breaker import OPEN_S, STATES
from gateway.deadline import Deadline
from gateway.errors import RuntimeFailed, RuntimeFault, RuntimeUnavailable
from gateway.images.preprocess import ImageTensor
from gateway.metrics import Ejection, Metrics
from gateway.runtimes import tls
from gateway.runtimes.addresses import Addresses, SettingsT
from gateway.runtimes.base import ModelRef, ModelStatus, Output, Runtime, State
from gateway.runtimes.outliers import Outliers
from gateway.runtimes.promise import SpecOf
from gateway.runtimes.replica import HUNG_S, Replica
from gateway.runtimes.warm_up import warm_up
from gateway.settings import InvalidSettings
from modelkit.spec import RuntimeName

_log = structlog.get_logger(__name__)

_LOAD_EVERY_S = 10.0
_LOAD_TIMEOUT_MS = 600_000
_PATIENCE_S = HUNG_S + 0.05
"""For so long, and then for _GRACE_S more, a status is waited for: then whoever has not answered is known to hang."""
_GRACE_S = 0.1
_BEST_FIRST: tuple[State, ...] = ("ready", "loading", "absent", "failed", "unavailable")


class Replicas(Generic[SettingsT]):
    """A Runtime made of as many workers as there are addresses.

    Names are resolved again every second, so that `docker compose up --scale torch_worker=2` needs nothing else. A
    picture goes to the worker with the fewest in flight, of those that said at their last `status` that they have the
    model, that are not ejected and whose circuit lets it through. A worker that comes to others is warmed up before it
    gets requests.
    """

    def __init__(
        self,
        name: RuntimeName,
        addresses: Addresses[SettingsT],
        open_worker: Callable[[SettingsT], Runtime],
        *,
        spec_of: SpecOf,
        warm_up_requests: int,
        metrics: Metrics,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_worker` makes the client of the worker with these settings; it may raise InvalidSettings. `patience_s`
        is how long a `status` waits for a worker that says nothing."""
        self.name = name
        self._addresses = addresses
        self._open_worker = open_worker
        self._spec_of = spec_of
        self._warm_up_requests = warm_up_requests
        self._patience_s = patience_s
        self._clock = clock
        self._replicas_gauge = metrics.replicas.labels(name)
        self._usable_gauge = metrics.replicas_usable.labels(name)
        self._breaker_gauge = metrics.breaker_state.labels(name)
        self._ejections = metrics.replica_ejections_of(name)
        self._replicas: dict[str, Replica] = {}
        self._outliers = Outliers(self._start, clock)
        self._refused: dict[str, tls.Stamp] = {}
        self._load_again_at_s: dict[tuple[str, ModelRef], float] = {}
        self._sizes: dict[ModelRef, tuple[int, int]] = {}
        self._turns = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def replicas(self) -> int:
        return max(1, len(self._replicas))

    def allows(self, model: ModelRef) -> bool:
        return any(each.allows(model) for each in self._able(model))

    async def infer(self, model: ModelRef, image: ImageTensor, *, deadline: Deadline) -> Output:
        if not self._replicas:
            await self._look_up(deadline)
        replica = self._choose(model)
        self._sizes[model] = (image.shape[1], image.shape[2])
        replica.turn = next(self._turns)
        try:
            return await replica.infer(model, image, deadline=deadline)
        except RuntimeUnavailable:
            self._report()
            raise
        except RuntimeFailed:
            if replica.fails(model):  # before the next status: until then more pictures would fail
                self._outliers.judge(model, self._serving(model), self._sizes[model])
            raise
        finally:
            if replica.gone and not replica.inflight:
                self._start(replica.close())

    def _none_known(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"No worker of the {self.name} runtime is known. {self._addresses.why_none}")

    def _serving(self, model: ModelRef) -> Sequence[Replica]:
        return [each for each in self._replicas.values() if model in each.serves]

    def _able(self, model: ModelRef) -> Sequence[Replica]:
        # Where none is known to have it, one of them says why better than this end could.
        return self._serving(model) or list(self._replicas.values())

    def _choose(self, model: ModelRef) -> Replica:
        able = self._able(model)
        if not able:
            raise self._none_known()
        allowed = [each for each in able if each.allows(model)]
        if not allowed:
            raise RuntimeUnavailable(
                f"The workers of the {self.name} runtime do not answer for {model}; they get one request now and then, "
                "until they do. Try again later.",
                retry_after_s=OPEN_S,
            )
        best = [each for each in allowed if model not in each.set_aside] or allowed
        return min(best, key=lambda each: (each.inflight, each.turn))

    async def status(self, model: ModelRef, *, deadline: Deadline) -> ModelStatus:
        """`ready` where at least one worker is; else the best that one of them says."""
        await self._look_up(deadline)
        replicas = list(self._replicas.values())
        if not replicas:
            return ModelStatus("unavailable", self._addresses.why_none)
        polls = [each.poll(model) for each in replicas]
        # Who hangs is not waited for, unless all do.
        waited = [poll for poll, each in zip(polls, replicas, strict=True) if not each.hung] or polls
        _, late = await asyncio.wait(waited, timeout=min(self._patience_s, deadline.remaining_s()))
        if late:  # what came while this process itself stood still is read first
            await asyncio.wait(late, timeout=min(_GRACE_S, self._patience_s))
        statuses = [self._status(each, model, poll) for each, poll in zip(replicas, polls, strict=True)]
        for replica, status in zip(replicas, statuses, strict=True):
            if status.state == "ready":
                self._take_in(replica, model)
            elif not replica.hung:  # who is only slow to say so still has it
                replica.serves.discard(model)
        if serving := self._serving(model):
            for replica, status in zip(replicas, statuses, strict=True):
                if status.state == "absent":
                    self._load_there(replica, model)
        if size := self._sizes.get(model):
            self._outliers.judge(model, serving, size)
        self._report()
        best = min(statuses, key=lambda status: _BEST_FIRST.index(status.state))
        return replace(best, hung=all(each.hung and model in each.serves for each in replicas))

    def _status(self, replica: Replica, model: ModelRef, poll: asyncio.Task[ModelStatus]) -> ModelStatus:
        replica.check(model)
        if replica.hung:
            return ModelStatus("unavailable", f"The worker of the {self.name} runtime hangs: it answers nothing.")
        if poll.done():
            return poll.result()
        # It answers other questions: whether it has the model is as it was.
        if model in replica.serves:
            return ModelStatus("ready")
        return ModelStatus("loading", f"The worker of the {self.name} runtime has not said yet whether it has {model}.")

    async def load(self, model: ModelRef, *, deadline: Deadline) -> None:
        """Raises what the first worker raises, where all do."""
        faults = await self._everywhere(lambda worker: worker.load(model, deadline=deadline), deadline)
        if faults and len(faults) == len(self._replicas):
            raise faults[0]

    async def unload(self, model: ModelRef, *, deadline: Deadline) -> None:
        """Raises what a worker raises."""
        for replica in self._replicas.values():
            replica.forget(model)
        self._sizes.pop(model, None)
        if faults := await self._everywhere(lambda worker: worker.unload(model, deadline=deadline), deadline):
            raise faults[0]

    async def scale(self, model: ModelRef, replicas: int, *, deadline: Deadline) -> None:
        """Raises what a worker raises."""
        if faults := await self._everywhere(lambda worker: worker.scale(model, replicas, deadline=deadline), deadline):
            raise faults[0]

    async def close(self) -> None:
        await self._addresses.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.close()

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

    async def _look_up(self, deadline: Deadline) -> None:
        """Bring the replicas up to date."""
        if self._replicas:
            await self._addresses.refresh()
        else:
            await self._addresses.refresh(patience_s=deadline.remaining_s())
        known = self._addresses.known
        for address in self._replicas.keys() - known.keys():
            self._let_go(self._replicas.pop(address))
        for address, settings in known.items():
            before, stamp = self._replicas.get(address), tls.stamp(settings)
            if before is not None and before.stamp == stamp:
                continue
            if (opened := self._open(address, settings, stamp)) is not None:
                self._replicas[address] = opened
                if before is not None:  # the same worker, over a channel with the new files
                    opened.serves |= before.serves
                    self._let_go(before)
        self._replicas_gauge.set(len(self._replicas))

    def _open(self, address: str, settings: SettingsT, stamp: tls.Stamp) -> Replica | None:
        if self._refused.get(address) == stamp:
            return None
        try:
            worker = self._open_worker(settings)
        except InvalidSettings as error:
            self._refused[address] = stamp  # said once for each content of the files
            _log.error("replica_not_opened", runtime=self.name, address=address, reason=str(error))
            return None
        _log.info("replica_found", runtime=self.name, address=address)
        return Replica(
            address,
            worker,
            stamp=stamp,
            spec_of=self._spec_of,
            ejected=partial(self._ejected, address),
            clock=self._clock,
        )

    def _ejected(self, address: str, why: Ejection) -> None:
        self._ejections[why].inc()
        _log.warning("replica_ejected", runtime=self.name, address=address, reason=why)

    def _let_go(self, replica: Replica) -> None:
        _log.info("replica_gone", runtime=self.name, address=replica.address)
        replica.gone = True
        if not replica.inflight:
            self._start(replica.close())

    def _take_in(self, replica: Replica, model: ModelRef) -> None:
        if model in replica.serves or model in replica.joining:
            return
        size = self._sizes.get(model)
        if size is None or not any(model in each.serves and not each.hung for each in self._replicas.values()):
            # The first ones are warmed up by whoever called `status`.
            replica.breakers[model].reset()
            replica.serves.add(model)
        else:
            replica.joining.add(model)
            self._start(self._join(replica, model, *size))

    async def _join(self, replica: Replica, model: ModelRef, height: int, width: int) -> None:
        try:
            await warm_up(replica.worker, model, height=height, width=width, requests=self._warm_up_requests)
        except RuntimeFault as error:
            _log.warning(
                "replica_failed_warm_up",
                runtime=self.name,
                address=replica.address,
                model=str(model),
                reason=str(error),
            )
            return
        finally:
            replica.joining.discard(model)
        replica.breakers[model].reset()
        replica.serves.add(model)
        self._report()
        _log.info("replica_joined", runtime=self.name, address=replica.address, model=str(model))

    def _load_there(self, replica: Replica, model: ModelRef) -> None:
        """The others have it: have this one load it, too."""
        if self._clock() < self._load_again_at_s.get((replica.address, model), 0.0):
            return
        self._load_again_at_s[replica.address, model] = self._clock() + _LOAD_EVERY_S

        async def load() -> None:
            try:
                await replica.worker.load(model, deadline=Deadline.after_ms(_LOAD_TIMEOUT_MS))
            except RuntimeFault as error:
                _log.warning(
                    "load_failed", runtime=self.name, address=replica.address, model=str(model), reason=str(error)
                )

        self._start(load())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self) -> None:
        replicas = self._replicas.values()
        states = [breaker.state for each in replicas for breaker in each.breakers.values()]
        states += ["open" for each in replicas if each.hung]
        self._breaker_gauge.set(max((STATES.index(state) for state in states), default=0))
        self._usable_gauge.set(sum(each.usable for each in replicas))
