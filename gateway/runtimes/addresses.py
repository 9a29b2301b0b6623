"""Where the workers of one runtime are: each IP address that the hosts in its settings stand for."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from gateway.settings import WorkerSettings

RESOLVE_EVERY_S = 1.0
_PATIENCE_S = 0.25
"""For so long a lookup may hold up those for whom the addresses of before will do."""

Resolve = Callable[[str], Awaitable[Sequence[str]]]
SettingsT = TypeVar("SettingsT", bound=WorkerSettings)


async def addresses_of(host: str) -> list[str]:
    """The IP addresses of `host`: its IPv4 ones where it has any, so that `localhost` is one worker. Raises OSError."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass  # a name
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses: dict[int, set[str]] = defaultdict(set)
    for family, *_, address in found:
        addresses[family].add(str(address[0]))
    return sorted(addresses.get(socket.AF_INET) or addresses[socket.AF_INET6])


class Addresses(Generic[SettingsT]):
    """The names are resolved again every second, by one lookup at a time: a resolver that hangs holds nobody up for
    long, nor one name the others."""

    def __init__(
        self,
        settings: SettingsT,
        *,
        resolve: Resolve = addresses_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries: Sequence[SettingsT] = settings.entries
        self._resolve = resolve
        self._clock = clock
        self._found: dict[str, Sequence[str]] = {}
        self._faults: dict[str, str] = {}
        self._lookup: asyncio.Task[None] | None = None
        self._again_at_s = 0.0

    @property
    def known(self) -> Mapping[str, SettingsT]:
        """The settings of each worker, by its address. A name that cannot be resolved keeps what it stood for."""
        workers = (entry.at(ip) for entry in self._entries for ip in self._found.get(entry.host, ()))
        return {worker.address: worker for worker in workers}

    @property
    def why_none(self) -> str:
        """What is wrong with the names, in a sentence; empty where nothing is known to be."""
        return " ".join(self._faults.values())

    async def refresh(self, *, patience_s: float = _PATIENCE_S) -> None:
        """Bring `known` up to date, as far as that takes no longer than `patience_s`."""
        if self._lookup is None and self._clock() >= self._again_at_s:
            self._lookup = asyncio.get_running_loop().create_task(self._look_up())
        if self._lookup is not None:
            await asyncio.wait({self._lookup}, timeout=patience_s)

    async def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait({self._lookup})

    async def _look_up(self) -> None:
        try:
            await asyncio.gather(*(self._find(host) for host in {entry.host for entry in self._entries}))
        finally:
            self._again_at_s = self._clock() + RESOLVE_EVERY_S
            self._lookup = None

    async def _find(self, host: str) -> None:
        self._faults.setdefault(host, f"The address {host!r} cannot be resolved: it takes too long.")
        try:
            self._found[host] = await self._resolve(host)
        except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one, such as `a..b`
            why = getattr(error, "strerror", None) or "it is no valid name"
            self._faults[host] = f"The address {host!r} cannot be resolved: {why}."
        else:
            del self._faults[host]
