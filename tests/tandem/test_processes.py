"""One child process, and what it starts: real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tandem.processes import Child, tail
from tests.tandem.conftest import Traces

pytestmark = pytest.mark.anyio

WORKER = str(Path(__file__).parent / "stubs" / "worker.py")


async def start(traces: Traces, folder: Path, *options: str, niceness: int = 0) -> Child:
    """A stub worker that is past its start."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as log:
        child = await Child.start(
            [sys.executable, "-S", WORKER, "worker", *options],
            log=log,
            cwd=folder,
            env=traces.environ,
            niceness=niceness,
        )
    with os.fdopen(reading) as output:
        await asyncio.to_thread(output.readline)
    return child


async def test_a_child_leads_a_session_and_a_group_of_its_own(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path)
    assert (os.getsid(child.pid), os.getpgid(child.pid)) == (child.pid, child.pid)
    await child.stop(grace_s=10)


async def test_a_child_stands_back_as_a_process_and_as_a_session(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path, niceness=3)
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    if (session := Path(f"/proc/{child.pid}/autogroup")).exists():  # elsewhere there is none to stand back
        assert session.read_text().split()[-1] == "3"  # noqa: ASYNC240  nothing else runs
    await child.stop(grace_s=10)


async def test_a_child_that_obeys_sigterm_is_not_killed(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path)
    await child.stop(grace_s=10)
    assert await child.wait() == 0
    assert traces.alive() == []


async def test_a_child_that_ignores_sigterm_is_killed_when_its_grace_is_over(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path, "stubborn")
    await child.stop(grace_s=0.1)
    assert await child.wait() == -signal.SIGKILL
    assert traces.alive() == []


async def test_stopping_ends_the_whole_group(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path, "family")
    group = [process for process in traces.alive() if os.getpgid(process.pid) == child.pid]
    assert len(group) == 3
    await child.stop(grace_s=10)
    assert [process for process in group if process.is_running()] == []


async def test_what_a_child_leaves_in_its_group_is_ended_when_it_ends_by_itself(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path, "orphans")
    assert await child.wait() == 8
    assert [process for process in traces.alive() if os.getpgid(process.pid) == child.pid] == []


async def test_a_program_that_does_not_exist_is_an_error_at_the_start(traces: Traces, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Child.start([str(tmp_path / "nothing")], log=-1, cwd=tmp_path, env=traces.environ)


async def test_a_start_that_is_cancelled_leaves_no_process(traces: Traces, tmp_path: Path) -> None:
    starting = asyncio.create_task(start(traces, tmp_path))
    await asyncio.sleep(0)  # it is now in the middle of it
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert traces.alive() == []


async def test_the_environment_of_a_child_is_the_given_one(traces: Traces, tmp_path: Path) -> None:
    child = await start(traces, tmp_path)
    assert [process.pid for process in traces.alive()] == [child.pid]
    assert psutil.Process(child.pid).cwd() == str(tmp_path)
    await child.stop(grace_s=10)


def test_the_tail_of_a_log_is_its_last_lines_and_of_a_missing_one_nothing(tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    log.write_text("one\ntwo\nthree\n")
    assert tail(log, 2) == "two\nthree"
    assert tail(tmp_path / "none.log") == ""
