"""What the comparison says of pairs whose truth is known, on real workers: `python -m loadtests.prove_live`.

A stack of its own, beside any other. `digits` has two versions that are the same files, but that TorchServe's handler
of version 2 sleeps before each batch. Each of these is asked for by `compare`, one target after the other in an order
by chance, and `GET /v1/comparison` is looked at again and again meanwhile:

- a target against itself: no difference may be claimed at any look;
- torch@1 against torch@2: the difference must be claimed, and be what was planted;
- tf@1 shadowed by tf@2, which differ in nothing: no difference may be claimed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from modelkit.spec import read
from tests.support.late import make_late
from tests.support.packages import renumber
from tests.support.stack import ROOT, Stack, running_stack

PLANTED_MS = 20.0
WITHIN_MS = 2.0
SAMPLES = [(ROOT / f"models/digits/samples/{digit}.png").read_bytes() for digit in range(10)]
Json = dict[str, Any]


class Live:
    def __init__(self, stack: Stack, console: Console) -> None:
        self._client = httpx.Client(base_url=stack.url, timeout=30)
        self._stack = stack
        self._console = console

    def same(self, target: str, requests: int, look_every: int) -> bool:
        """Whether no look claims a difference between a target and itself."""
        looks = self._looks(target, target, requests, look_every)
        claims = [look["verdict"] for look in looks if look["finding"] == "faster"]
        last = looks[-1]
        self._console.print(f"{target} against itself, {len(looks)} looks, {len(claims)} claims: {last['verdict']}")
        self._console.print(f"  a/b {_interval(last['paired']['ratio_any_looks'])} (any number of looks)")
        return not claims and bool(last["paired"]["complete"] >= 0.9 * requests)

    def planted(self, requests: int, look_every: int) -> bool:
        """Whether the planted delay is claimed, of the right target, and as great as it is."""
        looks = self._looks("torch@1", "torch@2", requests, look_every)
        last = looks[-1]
        first = next((look["paired"]["complete"] for look in looks if look["finding"] == "faster"), None)
        difference = last["paired"]["difference_ms"]
        self._console.print(f"{PLANTED_MS:g} ms planted, claimed after {first} pairs: {last['verdict']}")
        self._console.print(f"  torch@1 − torch@2: {_interval(difference)} ms (one look)")
        return bool(last["faster"] == "torch@1" and abs(difference["estimate"] + PLANTED_MS) <= WITHIN_MS)

    def order(self, requests: int) -> bool:
        """Whether a shadow looks as fast as its primary, where both are the same files on one runtime."""
        policy = {"policy": "shadow", "primary": "tf@1", "shadow": "tf@2", "control_rate": 1}
        headers = {"authorization": f"Bearer {(self._stack.var / 'admin.key').read_text().strip()}"}
        self._client.put("/v1/models/digits/routing", json=policy, headers=headers).raise_for_status()
        since = ""
        for _ in range(2):  # the first time to warm up: what has just become ready is left out
            since = datetime.now(UTC).isoformat()
            for number in range(requests):
                self._upload("predict", number)
        found = self._look("tf@1", "tf@2", since, requests)
        self._console.print(f"tf@1 shadowed by tf@2, the same files: {found['verdict']}")
        self._console.print(f"  a/b {_interval(found['paired']['ratio_any_looks'])} (any number of looks)")
        return bool(found["faster"] is None)

    def warm_up(self, targets: str, requests: int) -> None:
        """What has just become ready is left out of a comparison."""
        for number in range(requests):
            self._compare(targets, number)

    def _looks(self, a: str, b: str, requests: int, look_every: int) -> list[Json]:
        self.warm_up(f"{a},{b}", 100)
        since, looks = datetime.now(UTC).isoformat(), []
        for number in range(requests):
            self._compare(f"{a},{b}", number)
            if (number + 1) % look_every == 0:
                looks.append(self._look(a, b, since, number + 1))
        return looks

    def _compare(self, targets: str, number: int) -> None:
        self._upload("compare", number, targets=targets, mode="sequential")

    def _upload(self, what: str, number: int, **parameters: str) -> None:
        files = {"image": SAMPLES[number % len(SAMPLES)]}
        self._client.post(f"/v1/models/digits/{what}", params=parameters, files=files).raise_for_status()

    def _look(self, a: str, b: str, since: str, pairs: int) -> Json:
        """The comparison, once all pairs until now are in the log."""
        seen: Json = {}

        def complete() -> bool:
            parameters = {"model": "digits", "a": a, "b": b, "since": since}
            answer = self._client.get("/v1/comparison", params=parameters).raise_for_status().json()
            seen.update(answer)
            return bool(answer["paired"]["n"] >= pairs)

        self._stack.wait_until(complete)
        return seen


@contextmanager
def planted_stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory() as folder:
        var = Path(folder) / "var"
        store, serving = var / "store", var / "serving"
        _run("modelkit", "build", f"--store={store}", f"--serving={serving}")
        package = Path(folder) / "digits"
        shutil.copytree(store / "digits" / "1", package)
        renumber(package, 2)
        _run("tests.support.publish", str(package), str(store), str(serving))
        make_late(serving / "torch" / "digits-2.mar", PLANTED_MS / 1000)
        assert read(store / "digits" / "2").version == 2  # noqa: S101  what was published
        with running_stack(var) as stack:
            stack.wait_until_ready()
            yield stack


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _interval(measured: Json) -> str:
    if measured["low"] is None or measured["high"] is None:
        return f"{measured['estimate']}, no interval"
    return f"{measured['estimate']:.4f}, {measured['low']:.4f} … {measured['high']:.4f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="of a target against itself")
    parser.add_argument("--looks", type=int, default=20)
    options = parser.parse_args()
    console = Console(width=200)
    with planted_stack() as running:
        live = Live(running, console)
        right = [live.planted(500, 50)]
        right += [
            live.same(target, options.requests, options.requests // options.looks) for target in ("tf", "torch@1")
        ]
        right.append(live.order(1000))
    sys.exit(0 if all(right) else 1)
