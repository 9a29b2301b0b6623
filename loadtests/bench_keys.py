"""What a key costs each request, beside nothing else: `python -m loadtests.bench_keys`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.console import Console

from gateway import key_file
from gateway.key_file import new_key
from gateway.keys import Keys
from gateway.metrics import Metrics
from gateway.rates import Rates

_KEYS = 100
_TIMES = 20_000
_RATE = "1000000/minute"


async def main(console: Console) -> None:
    metrics = Metrics(CollectorRegistry())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        with key_file.changed(path) as kept:
            for number in range(_KEYS):
                text, key = new_key(
                    f"client-{number}", frozenset(["predict"]), rate=_RATE, created=datetime.now(UTC), expires=None
                )
                kept.append(key)
        keys = Keys(Path(folder) / "admin.key", path, required=True, metrics=metrics)
    rates = Rates("", share=lambda total: total, metrics=metrics)
    for key in kept:
        await rates.take(key.name, _RATE)

    async def nothing() -> None:
        await asyncio.sleep(0)

    async def find() -> None:
        keys.find(text)
        await asyncio.sleep(0)

    async def take() -> None:
        await rates.take(kept[0].name, _RATE)
        await asyncio.sleep(0)  # what it leaves to the loop counts, too

    least = await _us(nothing)
    for name, work in (("a key is found", find), ("a request of it is counted in this process", take)):
        console.print(f"{name}, of {_KEYS}: {await _us(work) - least:.1f} µs")


async def _us(work: Callable[[], Awaitable[None]]) -> float:
    """Of one, the best of five runs."""
    best = float("inf")
    for _ in range(5):
        begin_s = time.perf_counter()
        for _ in range(_TIMES):
            await work()
        best = min(best, time.perf_counter() - begin_s)
    return best / _TIMES * 1e6


if __name__ == "__main__":
    asyncio.run(main(Console()))
