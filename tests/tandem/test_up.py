"""`tandem up` in a process of its own, over real processes that stand for the workers and the gateway.

That the real ones come up, answer and end is in tests/integration.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.stack import stack_environment
from tests.tandem.conftest import Traces

ROOT = Path(__file__).parents[2]
STUBS = Path(__file__).parent / "stubs"

READY = {"state": "ready", "reason": None, "version": "1"}
BROKEN = {"state": "failed", "reason": "the archive has no model.pt", "version": "1"}


class Up:
    """A running `tandem up`, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], environ: dict[str, str]) -> None:
        self.process = process
        self.environ = environ
        self.said = ""

    @property
    def var(self) -> Path:
        return Path(self.environ["TANDEM_VAR"])

    def until(self, pattern: str) -> str:
        """Read on until a line has that in it, and return the line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if re.search(pattern, line):
                return line
        pytest.fail(f"{pattern!r} was never said, but:\n{self.said}")

    def await_workers(self, give_up_s: float = 30.0) -> None:
        """Until both stubs wait for their signal: the stack counts as up when the gateway says so."""
        until = time.monotonic() + give_up_s
        while not all(f"{name} started" in self.log(name) for name in ("torch", "tf")):
            assert time.monotonic() < until, self.said
            time.sleep(0.01)

    def log(self, name: str) -> str:
        path = self.var / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        self.said += self.process.communicate(timeout=30)[0]
        return self.process.returncode


StartUp = Callable[..., Up]


@pytest.fixture
def start_up(tmp_path: Path, traces: Traces) -> Iterator[StartUp]:
    """Starts the stubbed stack, in one `var` for each test."""
    environ = traces.environ | stack_environment(tmp_path / "var")
    environ |= {name: str(tmp_path / name.lower()) for name in ("READYZ", "ORDER")}
    with ExitStack() as processes:

        def start(
            *,
            torch: tuple[str, ...] = (),
            tf: tuple[str, ...] = (),
            build: str = "pass",
            grace_s: float = 20,
            gpu: dict[str, str] | None = None,
            states: tuple[dict[str, Any], dict[str, Any]] = (READY, READY),
        ) -> Up:
            models = {"digits": dict(zip(("torch", "tf"), states, strict=True))}
            (tmp_path / "readyz").write_text(json.dumps({"ready": True, "models": models}))
            builder = [sys.executable, "-S", "-c", build]
            plan = {"torch": torch, "tf": tf, "build": builder, "grace_s": grace_s, "gpu": gpu}
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.tandem.stubs.up", json.dumps(plan)],
                cwd=ROOT,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return Up(process, environ)

        yield start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_everything_in_good_order(start_up: StartUp, traces: Traces, number: signal.Signals) -> None:
    up = start_up()
    up.until("Tandem is up")
    up.await_workers()
    assert up.end(number) == 0
    assert traces.alive() == []
    order = Path(up.environ["ORDER"]).read_text().split()
    assert order[0] == "gateway"
    assert sorted(order[1:]) == ["tf", "torch"]


def test_once_up_it_says_where_what_to_try_and_where_the_logs_are(start_up: StartUp) -> None:
    up = start_up()
    assert up.environ["TANDEM_HTTP__PORT"] in up.until("Tandem is up")
    assert "samples/7.png" in up.until("curl -F image=@")
    assert "{torch,tf,gateway}.log" in up.until("logs")
    up.end()
    assert "torch started" in (up.var / "logs" / "torch.log").read_text()


def test_a_worker_that_ignores_sigterm_is_killed_with_all_it_started(start_up: StartUp, traces: Traces) -> None:
    up = start_up(torch=("family", "stubborn"), tf=("family",), grace_s=0.2)
    up.until("Tandem is up")
    traces.await_count(11)  # the supervisor, its undertaker, the gateway, four of each worker
    assert up.end(signal.SIGHUP) == 0
    assert traces.alive() == []


def test_a_second_signal_kills_at_once(start_up: StartUp, traces: Traces) -> None:
    up = start_up(torch=("family", "stubborn"), grace_s=600)
    up.until("Tandem is up")
    up.process.send_signal(signal.SIGINT)
    up.until("Stopping")
    assert up.end(signal.SIGINT) == 0
    assert traces.alive() == []


def test_a_signal_during_the_build_ends_the_build(start_up: StartUp, traces: Traces) -> None:
    build = (
        "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('half', flush=True); time.sleep(600)"
    )
    up = start_up(build=build)
    assert "half" in up.until("models")
    assert up.end() == 0
    assert traces.alive() == []
    assert not (up.var / "logs" / "torch.log").exists()


def test_a_signal_while_workers_are_loading_ends_them(start_up: StartUp, traces: Traces) -> None:
    loading = {"state": "loading", "reason": None, "version": "1"}
    up = start_up(torch=("family",), states=(loading, READY))
    up.until("tf .*digits version 1 is ready")
    assert up.end() == 0
    assert traces.alive() == []


def test_a_killed_supervisor_leaves_nothing_behind(start_up: StartUp, traces: Traces) -> None:
    up = start_up(torch=("family", "stubborn"), tf=("stubborn",))
    up.until("Tandem is up")
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    assert traces.left(within_s=10) == []


def test_it_runs_on_and_ends_in_order_when_nobody_reads_what_it_says(start_up: StartUp, traces: Traces) -> None:
    up = start_up()
    up.until("Tandem is up")
    assert up.process.stdout is not None
    up.process.stdout.close()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(timeout=30) == 0
    assert traces.alive() == []


def test_a_worker_that_dies_is_started_again_and_a_line_says_so(start_up: StartUp) -> None:
    up = start_up()
    up.until("Tandem is up")
    log = up.var / "logs" / "tf.log"
    psutil.Process(int(log.read_text().split()[-1])).kill()
    line = up.until("was ended by SIGKILL")
    assert re.search(r"tf +was ended by SIGKILL; starts again in 0.5 s; log: .*tf\.log", line)
    up.until("tf +digits version 1 is ready")
    deadline = time.monotonic() + 10
    while log.read_text().count("tf started") < 2:  # the stub of the gateway does not know of it
        assert time.monotonic() < deadline
        time.sleep(0.02)
    up.end()


def test_the_gateway_is_started_again_too(start_up: StartUp) -> None:
    up = start_up()
    up.until("Tandem is up")
    psutil.Process(int((up.var / "logs" / "gateway.log").read_text().split()[2])).kill()
    up.until("gateway +was ended by SIGKILL; starts again")
    up.until("gateway +answers")
    assert up.end() == 0


def test_what_a_dead_worker_leaves_is_ended_and_no_zombie_stays(start_up: StartUp, traces: Traces) -> None:
    up = start_up(tf=("orphans",))
    up.until("tf +exited with 8; starts again in 0.5 s")
    up.until("tf +exited with 8; starts again in 1 s")
    children = psutil.Process(up.process.pid).children(recursive=True)
    assert [child for child in children if child.status() == psutil.STATUS_ZOMBIE] == []
    assert up.end() == 0
    assert traces.alive() == []


def test_a_worker_that_cannot_start_does_not_keep_the_others_down(start_up: StartUp) -> None:
    up = start_up(torch=("dies",))
    up.until("torch +exited with 7; starts again in 0.5 s")
    up.until("Tandem is up")
    assert up.end() == 0


def test_a_model_that_fails_to_load_is_reported_with_its_reason(start_up: StartUp) -> None:
    up = start_up(states=(BROKEN, READY))
    up.until("torch +digits version 1 cannot be served: the archive has no model.pt")
    up.until("Tandem is up")
    assert up.end() == 0


def test_models_that_come_go_or_change_their_default_are_reported(start_up: StartUp, tmp_path: Path) -> None:
    up = start_up()
    up.until("Tandem is up")

    def now(models: dict[str, Any], wanted: dict[str, Any]) -> None:
        aside = tmp_path / "aside"
        aside.write_text(json.dumps({"ready": True, "models": models, "wanted": wanted}))
        aside.replace(up.environ["READYZ"])

    second = READY | {"version": "2"}
    now({"digits": {"torch": second, "tf": second}, "cats": {"torch": READY}}, {})
    up.until("torch +digits version 2 is ready")
    up.until("torch +cats version 1 is ready")
    now({"digits": {"torch": second}}, {"digits": {"torch": BROKEN | {"version": "3"}}})
    up.until("gateway +cats is not served any more")
    up.until("torch +digits version 3 cannot become the default: the archive has no model.pt")
    assert up.end() == 0


@pytest.mark.parametrize(
    ("tf_gpus", "hidden", "device", "said"),
    [
        pytest.param(["T4"], None, "gpu", "both runtimes run on the GPU, T4", id="both can"),
        pytest.param(
            [], "", "cpu", r"both runtimes run on the CPU: TensorFlow cannot use the GPU \(why\)", id="one can"
        ),
    ],
)
def test_both_workers_are_on_the_gpu_or_neither_and_a_line_says_which_and_why(
    start_up: StartUp, tmp_path: Path, tf_gpus: list[str], hidden: str | None, device: str, said: str
) -> None:
    pythons = {"torch": tmp_path / "python-torch", "tf": tmp_path / "python-tf"}
    for name, gpus in ("torch", ["T4"]), ("tf", tf_gpus):
        pythons[name].write_text(f"#!/bin/sh\necho '{json.dumps({'gpus': gpus, 'reason': 'why'})}'\n")
        pythons[name].chmod(0o755)
    up = start_up(gpu={name: str(path) for name, path in pythons.items()})
    up.until(f"workers +{said}")
    up.until("Tandem is up")
    up.await_workers()
    processes = {name: psutil.Process(int(up.log(name).split()[2])) for name in ("torch", "tf", "gateway")}
    assert {processes[name].environ().get("CUDA_VISIBLE_DEVICES") for name in ("torch", "tf")} == {hidden}
    told = processes["gateway"].environ()
    assert (told["TANDEM_TORCH__DEVICE"], told["TANDEM_TF__DEVICE"]) == (device, device)
    assert up.end() == 0


def test_packages_that_cannot_be_built_end_it_with_the_reason(start_up: StartUp, traces: Traces) -> None:
    up = start_up(build="import sys; sys.exit('parity: 3 of 10 differ')")
    assert up.wait() == 1
    assert "parity: 3 of 10 differ" in up.said
    assert "The model packages could not be built; all of it is in" in up.said
    assert traces.alive() == []


def test_a_second_one_in_the_same_folder_says_that_one_is_running(start_up: StartUp) -> None:
    up = start_up()
    up.until("Tandem is up")
    second = start_up()
    assert second.wait() == 1
    assert re.fullmatch(rf"A stack is already running in .*: process {up.process.pid}, http.*\n", second.said)
    up.end()


def test_the_lock_of_a_killed_one_does_not_keep_the_next_out(start_up: StartUp, traces: Traces) -> None:
    up = start_up()
    up.until("Tandem is up")
    up.end(signal.SIGKILL)
    assert traces.left(within_s=10) == []
    again = start_up()
    again.until("Tandem is up")
    assert again.end() == 0


def test_the_log_of_the_run_before_is_kept_aside(start_up: StartUp) -> None:
    for _ in range(2):
        up = start_up()
        up.until("Tandem is up")
        up.end()
    logs = up.var / "logs"
    first, second = (logs / "tf.log.1").read_text(), (logs / "tf.log").read_text()
    assert first.count("started") == second.count("started") == 1
    assert first != second
