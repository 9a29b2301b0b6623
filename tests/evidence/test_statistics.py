"""The statistics' process, as a gateway uses it: a real one, on a real file."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sqlalchemy import URL

from comparison.process import Process
from evidence.document import Target
from gateway.errors import DatabaseUnavailable, StatisticsUnavailable
from gateway.statistics import Statistics
from tests.support.inferences import TF, TORCH, pairs, write_log
from tests.support.stack import ROOT

pytestmark = pytest.mark.anyio


def known(model: str, a: Target, b: Target) -> Mapping[str, Any]:
    return {"devices": {"torch": "cpu", "tf": "cpu"}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    a, b = Process(0.0, slowdown=1.2).draw(1000, np.random.default_rng(3))
    return write_log(tmp_path / "tandem.db", pairs(a, b))


@asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Statistics]:
    running = Statistics(url, known, **options)
    try:
        yield running
    finally:
        await running.close()
    assert children() == []


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "evidence.__main__" in each.cmdline()]


async def test_a_question_is_answered_by_a_child_that_is_kept_and_ended_with_its_gateway(url: str) -> None:
    async with running(url, same_s=0) as stats:
        assert children() == []
        found = await stats.compare("digits", TORCH, TF, since=0.0)
        assert (found.faster, found.paired.n, found.environment) == ("tf", 1000, known("", TORCH, TF))
        (child,) = children()
        assert child.nice() >= 10
        assert not any("tandem.db" in argument for argument in child.cmdline())
        assert (await stats.compare("digits", TF, TORCH, since=0.0)).faster == "tf"
        assert children() == [child]


async def test_the_same_question_soon_after_gets_the_same_answer(url: str) -> None:
    now = 100.0
    async with running(url, now=lambda: now) as stats:
        first, second = await asyncio.gather(*(stats.compare("digits", TORCH, TF, since=0.0) for _ in range(2)))
        assert second is first
        assert (await stats.compare("digits", TORCH, TF, since=5.0)) is not first
        again = await stats.compare("digits", TORCH, TF, since=0.0)
        assert again is not first
        now += 2.0
        assert (await stats.compare("digits", TORCH, TF, since=0.0)) is not again


async def test_a_child_that_nobody_asks_is_ended(url: str) -> None:
    async with running(url, idle_s=0.0, same_s=0) as stats:
        await stats.compare("digits", TORCH, TF, since=0.0)
        (child,) = children()
        await asyncio.to_thread(child.wait, 30)
        await stats.compare("digits", TORCH, TF, since=0.0)


async def test_a_child_that_dies_is_said_and_started_anew(url: str) -> None:
    async with running(url, same_s=0) as stats:
        await stats.compare("digits", TORCH, TF, since=0.0)
        (child,) = children()
        child.send_signal(signal.SIGKILL)
        with pytest.raises(StatisticsUnavailable, match="started anew"):
            await stats.compare("digits", TORCH, TF, since=0.0)
        assert (await stats.compare("digits", TORCH, TF, since=0.0)).paired.n == 1000


async def test_an_answer_that_takes_too_long_is_given_up_and_so_is_its_child(url: str) -> None:
    async with running(url, same_s=0) as stats:
        await stats.compare("digits", TORCH, TF, since=0.0)
        (child,) = children()
        child.suspend()
        stats._patience_s = 0.05
        with pytest.raises(StatisticsUnavailable, match="shorter window"):
            await stats.compare("digits", TORCH, TF, since=0.0)
        assert not child.is_running()
        stats._patience_s = 60.0
        assert (await stats.compare("digits", TORCH, TF, since=0.0)).paired.n == 1000


async def test_without_a_database_it_says_so_and_makes_none(tmp_path: Path) -> None:
    async with running(f"sqlite:///{tmp_path / 'none.db'}", same_s=0) as stats:
        with pytest.raises(DatabaseUnavailable):
            await stats.compare("digits", TORCH, TF, since=0.0)
        assert not (tmp_path / "none.db").exists()
        a, b = Process(0.0).draw(400, np.random.default_rng(3))
        write_log(tmp_path / "none.db", pairs(a, b))
        assert (await stats.compare("digits", TORCH, TF, since=0.0)).paired.n == 400


async def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    (tmp_path / "a b?c#d%20").mkdir()
    a, b = Process(0.0).draw(400, np.random.default_rng(3))
    write_log(tmp_path / "a b?c#d%20" / "tandem.db", pairs(a, b))
    url = URL.create("sqlite", database=str(tmp_path / "a b?c#d%20" / "tandem.db")).render_as_string()
    async with running(url) as stats:
        assert (await stats.compare("digits", TORCH, TF, since=0.0)).paired.n == 400


async def test_a_relative_file_is_found_from_the_childs_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with running("sqlite:///tandem.db") as stats:
        assert (await stats.compare("digits", TORCH, TF, since=0.0)).paired.n == 1000


async def test_without_the_extra_it_says_what_to_install(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else find(name))
    async with running(url) as stats:
        with pytest.raises(StatisticsUnavailable, match=r"pip install 'tandem-serving\[comparison\]'"):
            await stats.compare("digits", TORCH, TF, since=0.0)


def test_a_child_ends_when_its_gateway_is_killed(url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from gateway.statistics import Statistics\n"
        "from tests.support.inferences import TF, TORCH\n"
        "async def main():\n"
        "    statistics = Statistics(sys.argv[1], lambda *_: {})\n"
        "    await statistics.compare('digits', TORCH, TF, since=0.0)\n"
        "    print('answered', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"answered\n"
        (child,) = psutil.Process(gateway.pid).children()
        gateway.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_a_gateway_loads_neither_scipy_nor_the_statistics() -> None:
    program = "import sys; import gateway.app; print([each for each in ('scipy', 'comparison') if each in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, env=os.environ)
    assert said.stdout == b"[]\n"
