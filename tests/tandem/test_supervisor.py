"""When services are started again: with a clock and processes of the test's own."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tandem.supervisor import Ended, Running, Service, Supervisor, describe, rotate

pytestmark = pytest.mark.anyio


def service(name: str = "torch", grace_s: float = 10.0) -> Service:
    return Service(name, ("program",), cwd=Path(), env={}, log=Path("torch.log"), grace_s=grace_s)


class Process:
    """Runs for a given time on the test's clock and then ends with a status; or runs until it is stopped."""

    def __init__(self, world: World, runs_s: float | None, status: int = 1) -> None:
        self.world = world
        self.runs_s = runs_s
        self.status = status
        self.stopped_with: float | None = None
        self.signals: list[signal.Signals] = []

    async def wait(self) -> int:
        if self.runs_s is None:
            await asyncio.Event().wait()
        else:
            self.world.now += self.runs_s
        return self.status

    async def stop(self, grace_s: float) -> None:
        self.stopped_with = grace_s

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)


class World:
    """A clock, and processes in the order in which they are to be started. The last one runs until it is stopped."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.ended: list[Ended] = []
        self.steady = asyncio.Event()
        self.processes: list[Process | OSError] = []

    def supervisor(self, *runs: Process | OSError) -> Supervisor:
        self.processes = list(runs)
        remaining = iter(self.processes)

        async def start(_: Service) -> Running:
            process = next(remaining)
            if isinstance(process, OSError):
                raise process
            if process.runs_s is None:
                self.steady.set()
            return process

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            self.now += seconds

        return Supervisor(self.ended.append, start=start, clock=lambda: self.now, sleep=sleep)


async def test_a_service_that_keeps_ending_is_started_again_after_growing_pauses() -> None:
    world = World()
    supervisor = world.supervisor(*(Process(world, 1.0) for _ in range(4)), Process(world, None))
    supervisor.keep(service())
    await world.steady.wait()
    assert world.pauses == [0.5, 1.0, 2.0, 4.0]
    await supervisor.stop("torch")


async def test_a_service_that_ran_well_for_a_while_is_started_again_soon() -> None:
    world = World()
    runs = (Process(world, 1.0), Process(world, 1.0), Process(world, 3600.0), Process(world, None))
    supervisor = world.supervisor(*runs)
    supervisor.keep(service())
    await world.steady.wait()
    assert world.pauses == [0.5, 1.0, 0.5]
    await supervisor.stop("torch")


async def test_every_end_is_reported_with_how_it_ended_and_when_it_comes_back() -> None:
    world = World()
    supervisor = world.supervisor(Process(world, 1.0, -9), OSError(2, "No such file"), Process(world, None))
    supervisor.keep(service())
    await world.steady.wait()
    assert [(ended.service.name, ended.how, ended.again_in_s) for ended in world.ended] == [
        ("torch", "was ended by SIGKILL", 0.5),
        ("torch", "could not be started ([Errno 2] No such file)", 1.0),
    ]
    await supervisor.stop("torch")


async def test_stopping_gives_a_service_its_grace_and_does_not_start_it_again() -> None:
    world = World()
    process = Process(world, None)
    supervisor = world.supervisor(process)
    supervisor.keep(service(grace_s=7.0))
    await world.steady.wait()
    await supervisor.stop("torch", "never started")
    assert process.stopped_with == 7.0
    assert world.ended == []


async def test_in_a_hurry_what_runs_is_killed_and_nothing_gets_a_grace() -> None:
    world = World()
    process = Process(world, None)
    supervisor = world.supervisor(process)
    supervisor.keep(service())
    await world.steady.wait()
    supervisor.hurry()
    assert process.signals == [signal.SIGKILL]
    await supervisor.stop("torch")
    assert process.stopped_with == 0


async def test_a_service_that_is_stopped_while_it_waits_to_be_started_again_stays_away() -> None:
    world = World()
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    started: list[Service] = []

    async def start(service: Service) -> Running:
        started.append(service)
        return Process(world, 1.0)

    supervisor = Supervisor(world.ended.append, start=start, clock=lambda: world.now, sleep=sleep)
    supervisor.keep(service())
    await waiting.wait()
    await supervisor.stop("torch")
    assert len(started) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with 0"), (3, "exited with 3"), (-15, "was ended by SIGTERM"), (-99, "was ended by signal 99")],
    ids=["clean", "failed", "signal", "unknown signal"],
)
def test_an_exit_status_is_said_in_words(status: int, words: str) -> None:
    assert describe(status) == words


def test_a_rotated_log_keeps_what_it_had_aside_and_its_writer_goes_on_from_the_start(tmp_path: Path) -> None:
    log = tmp_path / "tf.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"earlier\n")
        rotate(log)
        writer.write(b"later\n")
    assert log.read_bytes() == b"later\n"
    assert (tmp_path / "tf.log.1").read_bytes() == b"earlier\n"


def test_a_log_is_only_rotated_over_its_limit(tmp_path: Path) -> None:
    log = tmp_path / "tf.log"
    log.write_bytes(b"12345")
    rotate(log, over_bytes=5)
    rotate(tmp_path / "none.log")
    assert log.read_bytes() == b"12345"
    assert not (tmp_path / "tf.log.1").exists()
