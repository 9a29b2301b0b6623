"""One runtime answers 1 % of the pictures wrongly: `python -m loadtests.prove_labels`.

Over fake runtimes, whose faults are known. Under load the interval of the agreement must contain the planted share, and
a canary that asks for 99.9 % must roll back because of it; without a fault the same canary must be promoted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from loadtests.closed_loop import HttpCaller, closed_loop
from tests.support.fake_gateway import FakeGateway, fake_gateway
from tests.support.packages import write_store
from tests.support.stack import HOST, ROOT

WRONG = 0.01
IN_FLIGHT = 4
PATIENCE_S = 240
ROUTING = "/v1/models/digits/routing"
SHADOW: dict[str, object] = {"policy": "shadow", "primary": "torch", "shadow": "tf"}
CANARY: dict[str, object] = {
    "policy": "canary",
    "from": "torch",
    "to": "tf",
    "steps": [0.1, 1.0],
    "hold_s": 10,
    "sample_rate": 1.0,
    "guards": {"latency_ratio": 1.5, "error_rate": 0.01, "agreement": 0.999},
}
Json = dict[str, Any]


async def load_until(gateway: FakeGateway, wanted: Callable[[], bool]) -> None:
    """Upload pictures until `wanted`. Raises TimeoutError."""
    picture = ROOT / "models/digits/samples/7.png"
    end_s = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(wanted):
        if time.monotonic() > end_s:
            raise TimeoutError(f"not in {PATIENCE_S} s")
        callers = [HttpCaller(HOST, gateway.port, "/v1/models/digits/predict", picture, "") for _ in range(IN_FLIGHT)]
        await closed_loop(callers, 2.0)
        for caller in callers:
            await caller.close()


def agreement(gateway: FakeGateway, images: int, console: Console) -> bool:
    """Whether the interval of the agreement contains the truth."""
    gateway.set_policy(SHADOW)
    since, seen = datetime.now(UTC).isoformat(), Json()

    def enough() -> bool:
        parameters = {"model": "digits", "a": "torch", "b": "tf", "since": since}
        answer = httpx.get(f"{gateway.url}/v1/comparison", params=parameters, timeout=60).raise_for_status().json()
        seen.update(answer)
        return bool(answer["agreement"]["images"] >= images)

    asyncio.run(load_until(gateway, enough))
    share = seen["agreement"]["share"]
    console.print(
        f"{WRONG:.1%} planted: they agree on {share['estimate']:.2%} of {seen['agreement']['images']} images, "
        f"95 % interval {share['low']:.2%} … {share['high']:.2%}"
    )
    return bool(share["low"] <= 1 - WRONG <= share["high"])


def canary(gateway: FakeGateway, console: Console) -> str:
    """How a canary ends."""
    gateway.set_policy(CANARY)
    seen = Json()

    def over() -> bool:
        seen.update(httpx.get(f"{gateway.url}{ROUTING}", timeout=60).raise_for_status().json())
        return bool(seen["progress"]["state"] != "running")

    begin_s = time.monotonic()
    asyncio.run(load_until(gateway, over))
    progress = seen["progress"]
    console.print(f"canary {progress['state']} after {time.monotonic() - begin_s:.0f} s: {progress['why']}")
    return str(progress["state"])


def run(faults: Sequence[str], ask: Callable[[FakeGateway], bool]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", 1)
        with fake_gateway(Path(folder), "--latency-ms=3", *faults) as gateway:
            return ask(gateway)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="compared for the agreement")
    options = parser.parse_args()
    console = Console(width=200)
    wrong = ["--wrong=tf", f"--wrong-share={WRONG}"]
    right = [
        run(wrong, lambda gateway: agreement(gateway, options.images, console)),
        run(wrong, lambda gateway: canary(gateway, console) == "rolled_back"),
        run([], lambda gateway: canary(gateway, console) == "promoted"),
    ]
    sys.exit(0 if all(right) else 1)
