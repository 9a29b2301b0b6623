"""Targets with a fault of each kind, at mutants that are known: whether the fuzzer finds them."""

from __future__ import annotations

import os
import random
import signal

from tests.hostile.targets import Target


def made(chance: random.Random) -> tuple[str, bytes]:
    return "planted", bytes([chance.randrange(10)])


def sound() -> Target:
    return Target(made, lambda _: "fine")


def raising() -> Target:
    def run(data: bytes) -> str:
        if data[0] == 3:
            raise KeyError("three")
        return "fine"

    return Target(made, run)


def crashing() -> Target:
    def run(data: bytes) -> str:
        if data[0] == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return "fine"

    return Target(made, run)


def hanging() -> Target:
    def run(data: bytes) -> str:
        while data[0] == 3:
            pass
        return "fine"

    return Target(made, run)


def swallowing() -> Target:
    """More memory than a worker may have."""

    def run(data: bytes) -> str:
        return str(len(bytes(10**10))) if data[0] == 3 else "fine"

    return Target(made, run)
