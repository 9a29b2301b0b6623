"""What a shadow that hangs costs the requests that it is a copy of: `python -m loadtests.prove_shadow`.

Three gateways over fake runtimes, so that no worker shares their cores: two without a shadow, one whose every request
is shadowed by a runtime that never answers. They are loaded in turn, in an order by chance; how far the two alike lie
apart is the noise that the third is held against.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.closed_loop import Figures, HttpCaller, closed_loop
from tests.support.fake_gateway import FakeGateway, fake_gateway
from tests.support.packages import write_store
from tests.support.stack import HOST, ROOT

WARM_UP_S = 3.0
_MEDIAN_TO_MEAN = 1.2533
"""Standard error of a median over that of a mean, of normal values: the root of π/2."""
PLAIN, AGAIN, HUNG = "no shadow", "no shadow, again", "every request shadowed, the shadow hangs"
Rounds = dict[str, list[Figures]]


async def run(rounds: int, seconds: float, in_flight: int, latency_ms: float) -> bool:
    """Whether p99 is unchanged within the noise."""
    console = Console(width=120)
    with ExitStack() as held:
        gateways = {
            name: held.enter_context(fake_gateway(_var(held), f"--latency-ms={latency_ms}", "--hang=tf"))
            for name in (PLAIN, AGAIN, HUNG)
        }
        gateways[HUNG].set_policy({"policy": "shadow", "primary": "torch", "shadow": "tf"})
        seen = await _measure(gateways, rounds, seconds, in_flight)
    return _judge(seen, console)


def _var(held: ExitStack) -> Path:
    var = Path(held.enter_context(tempfile.TemporaryDirectory()))
    write_store(var / "store", 1)
    return var


async def _measure(gateways: dict[str, FakeGateway], rounds: int, seconds: float, in_flight: int) -> Rounds:
    picture, path = ROOT / "models/digits/samples/7.png", "/v1/models/digits/predict"

    async def load(name: str, seconds: float) -> Figures:
        # Connections of its own: the gateway closes those that idle while the others are loaded.
        callers = [HttpCaller(HOST, gateways[name].port, path, picture, "") for _ in range(in_flight)]
        figures = await closed_loop(callers, seconds)
        for caller in callers:
            await caller.close()
        return figures

    for name in gateways:
        await load(name, WARM_UP_S)
    seen: Rounds = {name: [] for name in gateways}
    for _ in range(rounds):
        for name in random.sample(list(gateways), len(gateways)):
            seen[name].append(await load(name, seconds))
    return seen


def _judge(seen: Rounds, console: Console) -> bool:
    table = Table("gateway", "images/s", "p50 ms", "p99 ms", title=f"medians of {len(seen[PLAIN])} rounds")
    for name, figures in seen.items():
        medians = (
            np.median([getattr(each, what) for each in figures]) for what in ("images_per_s", "p50_ms", "p99_ms")
        )
        table.add_row(name, *(f"{median:.2f}" for median in medians))
    console.print(table)
    noise, hung = (_log_ratios(seen, name) for name in (AGAIN, HUNG))
    # Two standard errors of a median of so many rounds, if they scatter as those of the two that are alike do.
    limit = float(np.exp(2 * _MEDIAN_TO_MEAN * np.sqrt(np.mean(noise**2) / len(noise))))
    with_shadow, alike = (float(np.exp(np.median(each))) for each in (hung, noise))
    console.print(
        f"p99 with the shadow ÷ without: {with_shadow:.3f}; of two alike: {alike:.3f}; the noise of such a median "
        f"reaches to {limit:.3f}"
    )
    return with_shadow <= limit


def _log_ratios(seen: Rounds, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of p99, round by round, over the plain gateway's."""
    pairs = zip(seen[name], seen[PLAIN], strict=True)
    return np.array([np.log(other.p99_ms / plain.p99_ms) for other, plain in pairs])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--in-flight", type=int, default=2, help="callers at once; 4 fill a core of the gateway")
    parser.add_argument("--latency-ms", type=float, default=5.0, help="what the fake primary takes")
    options = parser.parse_args()
    unchanged = asyncio.run(run(options.rounds, options.seconds, options.in_flight, options.latency_ms))
    sys.exit(0 if unchanged else 1)
