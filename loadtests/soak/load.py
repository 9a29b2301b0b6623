"""The clients of a soak, and what they were answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence

from loadtests.soak.client import Broken, Client, Reply
from loadtests.soak.mix import Kind

_EXAMPLES = 20


class Load:
    """Plays the kinds of a mix, and keeps what came of them."""

    def __init__(self, kinds: Sequence[Kind], host: str, port: int, seed: int) -> None:
        self._kinds = kinds
        self._host, self._port = host, port
        self._chance = random.Random(seed)  # noqa: S311  not for secrets
        self.answers: Counter[tuple[str, str]] = Counter()
        """By kind and status; `-` of a client that went away, `broken` of an answer that was owed."""
        self.wrong: Counter[tuple[str, str]] = Counter()
        self.examples: list[str] = []
        """Of the first wrong ones, what they said."""

    @property
    def requests(self) -> int:
        return self.answers.total()

    async def prime(self, users: int) -> None:
        """Every kind that settles, by each of so many users: what is made once is made then, such as threads."""
        kinds = [kind for kind in self._kinds if kind.settles]

        async def every(client: Client) -> None:
            for kind in kinds:
                await self._play(kind, client)

        await self._with_clients(users, every)

    async def run(self, users: int, *, rate: float, seconds: float = float("inf"), requests: int | None = None) -> None:
        """So many users, together `rate` requests a second at most, until the time is over or so many were made."""
        end_s = time.monotonic() + seconds
        last = None if requests is None else self.requests + requests
        weights = [kind.weight for kind in self._kinds]

        async def keep_playing(client: Client) -> None:
            while time.monotonic() < end_s and (last is None or self.requests < last):
                (kind,) = self._chance.choices(self._kinds, weights)
                begin_s = time.monotonic()
                await self._play(kind, client)
                pause_s = self._chance.expovariate(rate / users)
                await asyncio.sleep(max(0.0, pause_s - (time.monotonic() - begin_s)))

        await self._with_clients(users, keep_playing)

    async def _with_clients(self, users: int, act: Callable[[Client], Coroutine[None, None, None]]) -> None:
        clients = [Client(self._host, self._port) for _ in range(users)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(act(client))
        for client in clients:
            await client.close()

    async def _play(self, kind: Kind, client: Client) -> None:
        reply: Reply | None
        try:
            reply = await kind.play(client, self._chance)
        except (Broken, OSError, TimeoutError) as error:
            status, right, why = "broken", False, f"{type(error).__name__}: {error}"
        else:
            status = "-" if reply is None else str(reply.status)
            right = reply is None or reply.status in kind.right
            why = "" if reply is None else reply.why
        self.answers[kind.name, status] += 1
        if not right:
            self.wrong[kind.name, status] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{kind.name}: {status} {why}")
