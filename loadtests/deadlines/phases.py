"""What is measured of one runtime, phase by phase."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from PIL import Image

from loadtests.deadlines.client import Client, connected
from modelkit.spec import RuntimeName
from tests.fakes.silent import Call, SilentWorker
from tests.support.gateway import Gateway
from tests.support.pictures import encode
from tests.support.waiting import wait_until

MOST_S = 0.1
PLACES = 16
"""At the runtime."""
AT_ONCE = 12
_TIMEOUTS_MS = (50, 200, 1000)
_LONG_MS = 60_000
_STAY_S = 0.2
"""Longest that a client stays that hangs up once its picture is at the worker."""
_PATIENCE_S = 10.0
_UNSENT = 100_000
"""Bytes of a body that does not come to its end."""
_BEAT_S = 0.005


@dataclass
class Outcome:
    what: str
    runtime: RuntimeName
    late_s: list[float] = field(default_factory=list)
    """How long past its deadline each answer came, or past the hang-up the end of what was under way."""
    others: Counter[str] = field(default_factory=Counter)
    """What came of requests that should not."""
    own_late_s: float = 0.0
    """The most that a timer of this program was late meanwhile."""

    def faults(self, most_s: float = MOST_S) -> list[str]:
        """What is not as it is promised, in words; none where all is."""
        found = [f"{count} × {what}" for what, count in self.others.items()]
        if not self.late_s:
            found.append("nothing was measured")
        elif (longest_s := max(self.late_s)) > most_s:
            found.append(f"{longest_s * 1000:.0f} ms, at most {most_s * 1000:.0f} may be")
        return found


class Phases:
    def __init__(self, gateway: Gateway, worker: SilentWorker, runtime: RuntimeName, count: int) -> None:
        """`count`: requests in each."""
        port = gateway.client.base_url.port
        assert port is not None  # noqa: S101  a gateway's URL has one
        self._port = port
        self._gateway = gateway
        self._worker = worker
        self._runtime = runtime
        self._count = count

    async def run(self) -> Sequence[Outcome]:
        # The queue first: once the gateway knows how long a place is held, it lets nobody wait in vain.
        async with self._at_worker(PLACES):
            queued = await self._deadlines("deadline, in the queue")
            left = await self._hang_ups_in_queue()
        await self._until_none("tandem_inflight", left)
        waited = await self._deadlines("deadline, at the worker")
        stalled = await self._deadlines("deadline, slow body", length=_UNSENT)
        cancelled = await self._hang_ups()
        return [waited, queued, stalled, cancelled, left]

    async def _deadlines(self, what: str, *, length: int | None = None) -> Outcome:
        outcome = Outcome(what, self._runtime)

        async def one(number: int) -> None:
            timeout_ms = random.choice(_TIMEOUTS_MS)  # noqa: S311  not for secrets
            async with connected(self._port) as client, AsyncExitStack() as held:
                begin_s = client.ask(self._path(timeout_ms), _picture(0), length=length)
                if length is not None and number % 2:  # of the others' bodies nothing more comes at all
                    held.callback(asyncio.create_task(client.drip()).cancel)
                try:
                    async with asyncio.timeout(timeout_ms / 1000 + _PATIENCE_S):
                        answer = await client.answer()
                except (OSError, EOFError, TimeoutError) as error:
                    outcome.others[type(error).__name__] += 1
                    return
                outcome.late_s.append(time.monotonic() - begin_s - timeout_ms / 1000)
                if answer != "504 deadline_exceeded":
                    outcome.others[answer] += 1

        async with _watched(outcome):
            await _at_once(self._count, one)
        return outcome

    async def _hang_ups(self) -> Outcome:
        outcome = Outcome("hung up, at the worker", self._runtime)
        before = await self._counted()

        async def one(_: int) -> None:
            async with self._at_worker(1) as ((client, call),):
                await asyncio.sleep(random.uniform(0, _STAY_S))  # noqa: S311  not for secrets
                begin_s = client.hang_up()
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await call.ended.wait()
                except TimeoutError:
                    outcome.others["not cancelled"] += 1
                else:
                    outcome.late_s.append(call.ended_s - begin_s)

        async with _watched(outcome):
            await _at_once(self._count, one)
        await self._until_none("tandem_inflight", outcome)
        await self._judge_counts(outcome, before, self._count)
        return outcome

    async def _hang_ups_in_queue(self) -> Outcome:
        """A dozen wait and hang up together, again and again. The places are taken by others."""
        outcome = Outcome("hung up, in the queue", self._runtime)
        before = await self._counted()
        rounds = -(-self._count // AT_ONCE)
        async with _watched(outcome):
            for _ in range(rounds):
                async with AsyncExitStack() as held:
                    clients = [await held.enter_async_context(connected(self._port)) for _ in range(AT_ONCE)]
                    for client in clients:
                        client.ask(self._path(_LONG_MS), _picture(0))
                    await self._until("tandem_queue_depth", AT_ONCE)
                    begin_s = min([client.hang_up() for client in clients])
                    await self._until_none("tandem_queue_depth", outcome)
                    outcome.late_s.append(time.monotonic() - begin_s)
        await self._judge_counts(outcome, before, rounds * AT_ONCE)
        return outcome

    @asynccontextmanager
    async def _at_worker(self, count: int) -> AsyncIterator[Sequence[tuple[Client, Call]]]:
        """So many clients whose pictures are at the worker, each with its call there. They hang up at the end.

        Raises TimeoutError where the pictures do not get there."""
        async with AsyncExitStack() as held:
            clients = [await held.enter_async_context(connected(self._port)) for _ in range(count)]
            calls = []
            for client in clients:
                number, call = self._worker.expect()
                client.ask(self._path(_LONG_MS), _picture(number))
                calls.append(call)
            async with asyncio.timeout(_PATIENCE_S):
                for call in calls:
                    await call.came.wait()
            yield list(zip(clients, calls, strict=True))

    def _path(self, timeout_ms: int) -> str:
        return f"/v1/models/digits/predict?runtime={self._runtime}&timeout_ms={timeout_ms}"

    async def _until(self, gauge: str, value: int) -> None:
        """Raises TimeoutError."""
        series = f'{gauge}{{runtime="{self._runtime}"}}'

        def now() -> float:
            return self._gateway.count(series)

        await asyncio.to_thread(
            wait_until, lambda: now() == value, lambda: f"{series} is {now()}", patience_s=_PATIENCE_S, pause_s=0.002
        )

    async def _until_none(self, gauge: str, outcome: Outcome) -> None:
        try:
            await self._until(gauge, 0)
        except TimeoutError as error:
            outcome.others[str(error)] += 1

    async def _judge_counts(self, outcome: Outcome, before: Counter[str], cancelled: int) -> None:
        """Since `before`, so many must have been counted as cancelled, and nothing else."""
        since = await self._counted()
        since.subtract(before)
        since["cancelled"] -= cancelled
        for what, surplus in since.items():
            if surplus:
                outcome.others[f"too {'many' if surplus > 0 else 'few'} counted as {what}"] += abs(surplus)

    async def _counted(self) -> Counter[str]:
        """Requests to the runtime so far, by their outcomes."""
        said = (await asyncio.to_thread(self._gateway.client.get, "/metrics")).text
        series = rf'^tandem_requests_total{{.*outcome="(\w+)".*runtime="{self._runtime}".*}} (\S+)$'
        counts = Counter[str]()
        for outcome, count in re.findall(series, said, re.MULTILINE):
            counts[outcome] += int(float(count))
        return counts


def _picture(number: int) -> bytes:
    """As large as the model's input, so that its pixels come to the worker as they are."""
    red, green, blue = number.to_bytes(3)
    return encode(Image.new("RGB", (32, 32), (red, green, blue)))


async def _at_once(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """`one` for each number below `count`, a dozen at once."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


@asynccontextmanager
async def _watched(outcome: Outcome) -> AsyncIterator[None]:
    """Keep in `outcome` how late this program's own timers are in the block."""

    async def beat() -> None:
        while True:
            due_s = time.monotonic() + _BEAT_S
            await asyncio.sleep(_BEAT_S)
            outcome.own_late_s = max(outcome.own_late_s, time.monotonic() - due_s)

    heart = asyncio.create_task(beat())
    try:
        yield
    finally:
        heart.cancel()
