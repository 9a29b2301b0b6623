"""The gateway over the fake runtimes, to measure it alone: `python -m tests.fakes.gateway`."""

from __future__ import annotations

import argparse
import asyncio
import random

from gateway import log
from gateway.__main__ import serve
from gateway.app import create_app
from gateway.settings import Settings
from modelkit.spec import RUNTIME_NAMES
from tests.fakes.runtimes import FakeRuntime

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="what each answer takes")
    parser.add_argument("--hang", choices=RUNTIME_NAMES, action="append", default=[], help="answers nobody")
    parser.add_argument("--fail", choices=RUNTIME_NAMES, action="append", default=[], help="has a fault of ours")
    parser.add_argument("--wrong", choices=RUNTIME_NAMES, action="append", default=[], help="answers wrongly at times")
    parser.add_argument("--wrong-share", type=float, default=0.01)
    options = parser.parse_args()
    settings = Settings()
    log.configure(settings.log)
    fakes = {name: FakeRuntime(name, latency_s=options.latency_ms / 1000) for name in RUNTIME_NAMES}
    for name in options.hang:
        fakes[name].hold = asyncio.Event()
    for name in options.fail:
        fakes[name].error = ValueError("A fault that nobody expects.")
    chance = random.Random()  # noqa: S311  not for secrets
    for name in options.wrong:
        fakes[name].offset_of = lambda: int(chance.random() < options.wrong_share)
    serve(lambda settings: create_app(settings, fakes), settings)
