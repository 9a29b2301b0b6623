"""Setting up the environments, in a checkout of the test's own, with a stub for the Python that makes them."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.tandem.conftest import Traces

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).parent / "stubs" / "python.sh"
ALL = [".venv", ".venv-tf", ".venv-torch"]


class Checkout:
    """A folder to set up, and what was done there."""

    def __init__(self, root: Path, environ: dict[str, str]) -> None:
        self.root = root
        self.environ = environ | {
            "CALLS": str(root / "calls"),
            "TANDEM_GPU": "0",
            "TANDEM_TORCH_INDEX": "",
            "TANDEM_VAR": "var",
            "STUB_FAILS": "nothing",
            "STUB_HANGS": "nothing",
        }
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root)

    def start(self, *arguments: str, before: str = "", **environ: str) -> subprocess.Popen[str]:
        program = (
            f"import sys, pathlib, tandem.environments as e; e.ROOT = pathlib.Path({str(self.root)!r});"
            f"e.PROGRESS_EVERY_S = 0.1; sys._base_executable = {str(STUB)!r}\n{before}\n"
            f"sys.exit(e.main({list(arguments)!r}))"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def set_up(self, *arguments: str, before: str = "", **environ: str) -> tuple[int, str]:
        """The exit status, and what was said."""
        with self.start(*arguments, before=before, **environ) as process:
            said = process.communicate(timeout=30)[0]
        return process.returncode, said

    def calls(self) -> list[str]:
        """What the stub was asked since the last time, in no order."""
        calls = self.root / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.write_text("")
        return lines

    def finished(self) -> list[str]:
        return sorted(stamp.parent.name for stamp in self.root.glob(".venv*/tandem-installed.json"))


@pytest.fixture
def checkout(tmp_path: Path, traces: Traces) -> Checkout:
    return Checkout(tmp_path, traces.environ)


def test_each_environment_is_made_from_its_own_groups_and_the_constraints(checkout: Checkout) -> None:
    status, said = checkout.set_up()
    assert status == 0
    assert [line for line in ALL if f"{line} " in said and "ready after" in said] == ALL
    calls = checkout.calls()
    assert sum(call.startswith("-m venv --clear") for call in calls) == 3
    assert sum(re.search(r"install .* pip==[\d.]+$", call) is not None for call in calls) == 3
    for wants in (
        "-e .[comparison] --group dev",
        "--group torch-worker --group worker-tests",
        "--group tf-worker --group worker-tests",
    ):
        assert sum(call.endswith(f"-c constraints.txt {wants}") for call in calls) == 1


def test_a_second_run_does_nothing_and_says_nothing(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.calls()
    assert checkout.set_up() == (0, "")
    assert checkout.calls() == []


def test_a_changed_constraint_is_installed_into_the_same_environments(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.calls()
    with (checkout.root / "constraints.txt").open("a") as constraints:
        constraints.write("something==1.0\n")
    assert checkout.set_up()[0] == 0
    calls = checkout.calls()
    assert len(calls) == 3
    assert not any("venv" in call for call in calls if "--clear" in call)


def test_a_changed_linter_setting_installs_nothing(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.calls()
    with (checkout.root / "pyproject.toml").open("a") as project:
        project.write("\n[tool.something]\nlevel = 1\n")
    assert checkout.set_up() == (0, "")


def test_another_build_of_torch_makes_the_environments_anew(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.calls()
    assert checkout.set_up(TANDEM_TORCH_INDEX="file:///wheels")[0] == 0
    assert sum(call.startswith("-m venv --clear") for call in checkout.calls()) == 3


def test_only_the_environments_that_are_named_are_made(checkout: Checkout) -> None:
    assert checkout.set_up(".venv")[0] == 0
    assert checkout.finished() == [".venv"]


def test_a_failed_installation_shows_the_end_of_its_log_and_leaves_no_stamp(checkout: Checkout, traces: Traces) -> None:
    status, said = checkout.set_up(STUB_FAILS="tf-worker", STUB_HANGS="torch-worker")
    assert status == 1
    assert "ERROR: no matching distribution" in said
    assert re.search(r"Installing \.venv-tf failed .*; all of it is in .*install-venv-tf\.log\n$", said)
    assert not {".venv-tf", ".venv-torch"} & set(checkout.finished())
    assert traces.alive() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_every_installation_and_the_next_run_makes_it_anew(
    checkout: Checkout, traces: Traces, number: signal.Signals
) -> None:
    with checkout.start(".venv-torch", STUB_HANGS="torch-worker") as process:
        assert process.stdout is not None
        lines = itertools.islice(process.stdout, 200)
        assert any("collecting torch-worker" in line for line in lines)
        assert len(traces.alive()) == 4  # the script, pip, and the two it started
        process.send_signal(number)
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "Interrupted" in said
    assert traces.alive() == []
    assert checkout.finished() == []
    checkout.calls()
    assert checkout.set_up(".venv-torch")[0] == 0
    assert sum(call.startswith("-m venv --clear") for call in checkout.calls()) == 1


def test_with_a_gpu_each_worker_gets_its_cuda_libraries(checkout: Checkout) -> None:
    environ = {name: value for name, value in checkout.environ.items() if name != "TANDEM_TORCH_INDEX"}
    checkout.environ = environ
    plenty = "e.check_disk = lambda *_: None"  # the real libraries are many gigabytes; the stub installs none
    assert checkout.set_up(TANDEM_GPU="1", before=plenty)[0] == 0
    calls = checkout.calls()
    assert sum(call.endswith("--group tf-worker --group worker-tests tensorflow[and-cuda]") for call in calls) == 1
    assert not any("--extra-index-url" in call for call in calls)


class Index(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        pass


@pytest.fixture
def index_url() -> Iterator[Callable[[str], str]]:
    """The address of an index that answers, is silent, or is not there."""
    with ExitStack() as stack:

        def make(how: str) -> str:
            if how == "answers":
                server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Index))
                Thread(target=server.serve_forever, daemon=True).start()
                stack.callback(server.shutdown)
                return f"http://127.0.0.1:{server.server_port}"
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
            if how == "is not there":
                listener.close()
            return f"http://127.0.0.1:{port}"

        yield make


@pytest.mark.parametrize(("how", "used"), [("answers", True), ("is silent", False), ("is not there", False)])
def test_the_index_of_cpu_builds_is_used_for_torch_alone_and_only_when_it_answers(
    checkout: Checkout, index_url: Callable[[str], str], how: str, used: bool
) -> None:
    url = index_url(how)
    del checkout.environ["TANDEM_TORCH_INDEX"]
    patience = 20 if used else 0.5
    before = f"e.TORCH_CPU_INDEX = {url!r}; e.INDEX_PATIENCE_S = {patience}"
    assert checkout.set_up(before=before)[0] == 0
    with_index = [call for call in checkout.calls() if f"--extra-index-url {url}" in call]
    assert len(with_index) == used
    assert all("--group torch-worker" in call for call in with_index)


def test_an_index_of_ones_own_is_used_without_asking(checkout: Checkout) -> None:
    assert checkout.set_up(".venv-torch", TANDEM_TORCH_INDEX="https://pypi.example/cu999")[0] == 0
    assert any("--extra-index-url https://pypi.example/cu999 --group torch-worker" in c for c in checkout.calls())
