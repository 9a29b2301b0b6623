"""What a machine lacks is said in one line that names it and what to do, before anything long."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings import Settings
from tandem import preflight, stack
from tandem.preflight import MIB, Endpoint, Problem
from tests.support.stack import free_ports, stack_environment

ROOT = Path(__file__).parents[2]


def one_line(problem: pytest.ExceptionInfo[Problem]) -> str:
    message = str(problem.value)
    assert "\n" not in message
    return message


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_named_with_the_variable_that_moves_it(taken_port: int) -> None:
    with pytest.raises(Problem) as problem:
        preflight.check_ports([Endpoint("gateway HTTP", "TANDEM_HTTP__PORT", "127.0.0.1", taken_port)])
    assert re.match(rf"Port {taken_port} \(gateway HTTP\) is in use .* set TANDEM_HTTP__PORT", one_line(problem))


def test_a_port_that_another_listens_on_at_every_address_is_in_use() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server, pytest.raises(Problem, match="is in use"):  # noqa: S104
        preflight.check_ports([Endpoint("gateway HTTP", "X", "127.0.0.1", server.getsockname()[1])])


def test_one_port_for_two_parts_is_named_with_both_variables() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Problem) as problem:
        preflight.check_ports([Endpoint("one", "ONE", "127.0.0.1", port), Endpoint("two", "TWO", "127.0.0.1", port)])
    assert one_line(problem) == f"Port {port} (two) is also that of one: set TWO or ONE to another."


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Problem, match=r"192\.0\.2\.1 is not an address of this machine.*correct TANDEM_TF__ADDRESS"):
        preflight.check_ports([Endpoint("TensorFlow", "TANDEM_TF__ADDRESS", "192.0.2.1", 8500)])


def test_port_zero_is_refused() -> None:
    with pytest.raises(Problem, match="needs a fixed port; set TANDEM_HTTP__PORT"):
        preflight.check_ports([Endpoint("gateway HTTP", "TANDEM_HTTP__PORT", "127.0.0.1", 0)])


def test_free_ports_pass_and_stay_free() -> None:
    ports = [Endpoint("part", "PART", "127.0.0.1", port) for port in free_ports(3)]
    preflight.check_ports(ports)
    preflight.check_ports(ports)


@pytest.mark.parametrize("environ", [{}, stack_environment(Path("var"))], ids=["defaults", "all moved"])
def test_the_early_check_knows_the_same_endpoints_as_the_settings(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("TANDEM_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert list(preflight.endpoints(os.environ)) == list(stack.endpoints(Settings()))


def machine(folder: Path, available_kib: int, cgroup: str = "") -> tuple[Path, Path]:
    """The files of a machine's /proc and /sys/fs/cgroup."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 64000000 kB\nMemAvailable:   {available_kib} kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    return proc, cgroups


def write_group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_without_a_limit_the_available_memory_is_the_machines(tmp_path: Path) -> None:
    assert preflight.available_memory(*machine(tmp_path, 2048, "0::/some\n")) == 2 * MIB


def test_the_limit_of_a_control_group_counts_and_its_file_cache_does_not(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, 1 << 24, "0::/box/inner\n")
    write_group(cgroups / "box", memory__max=512 * MIB, memory__current=400 * MIB, memory__stat="inactive_file 1048576")
    write_group(cgroups / "box" / "inner", memory__max="max", memory__current=7, memory__stat="inactive_file 0")
    assert preflight.available_memory(proc, cgroups) == 113 * MIB


def test_the_limit_of_a_control_group_of_the_first_version_counts(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, 1 << 24, "5:cpu:/\n4:memory:/box\n")
    write_group(
        cgroups / "memory" / "box",
        memory__limit_in_bytes=300 * MIB,
        memory__usage_in_bytes=100 * MIB,
        memory__stat="total_inactive_file 0",
    )
    assert preflight.available_memory(proc, cgroups) == 200 * MIB


def test_too_little_memory_is_said_with_what_is_needed_and_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_memory", lambda: 700 * MIB)
    with pytest.raises(Problem) as problem:
        preflight.check_memory(1536 * MIB)
    assert "needs about 1536 MiB and 700 MiB are available" in one_line(problem)


def test_too_little_disk_space_is_said_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(Problem) as problem:
        preflight.check_disk(tmp_path, 1 << 60)
    assert re.match(r"Too little disk space: \d+ MiB are needed in .* MiB are free", one_line(problem))


def run_bootstrap(before: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m tandem.bootstrap` after some lines of Python that change what it finds."""
    program = f"{before}\nimport runpy, sys; sys.argv[1:] = {list(arguments)!r}\nrunpy.run_module('tandem.bootstrap')"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("version", ["(3, 6, 8)", "(3, 10, 13)", "(3, 14, 0)"])
def test_a_python_that_does_not_fit_is_named_with_the_ones_that_do(version: str) -> None:
    result = run_bootstrap(f"import sys; sys.version_info = {version}")
    assert result.returncode == 1
    assert re.fullmatch(r"Tandem needs Python 3\.11 to 3\.13 and .* is 3\.\d+: .*PYTHON=.*\n", result.stderr)


@pytest.fixture
def checkout(tmp_path: Path) -> str:
    """Lines of Python that let the environments be those of a checkout where none is made yet."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return f"import tandem.environments as e, pathlib; e.ROOT = pathlib.Path({str(tmp_path)!r})"


def test_a_python_without_ensurepip_is_told_which_package_to_install(checkout: str) -> None:
    result = run_bootstrap(f"{checkout}; import sys; sys.modules['ensurepip'] = None")
    assert result.returncode == 1
    assert re.fullmatch(r"This Python cannot make environments \(ensurepip is missing\).*venv.*\n", result.stderr)


def test_a_port_in_use_is_reported_before_anything_is_installed(checkout: str, taken_port: int, tmp_path: Path) -> None:
    environ = stack_environment(tmp_path / "var") | {"TANDEM_HTTP__PORT": str(taken_port)}
    result = run_bootstrap(checkout, "--up", env=environ)
    assert result.returncode == 1
    assert re.fullmatch(rf"Port {taken_port} \(gateway HTTP\) is in use .*\n", result.stderr)
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_limit_of_address_space_is_reported(checkout: str, tmp_path: Path) -> None:
    before = f"{checkout}; import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))"
    result = run_bootstrap(before, "--up", env=stack_environment(tmp_path / "var"))
    assert re.fullmatch(r"Too little memory: .* 4096 MiB here \(ulimit -v\).*\n", result.stderr)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TANDEM_HTTP__PORT", "abc", "TANDEM_HTTP__PORT: Input should be a valid integer.*'abc'"),
        ("TANDEM_DEFAULT_RUNTIME", "jax", "TANDEM_DEFAULT_RUNTIME: Input should be 'torch' or 'tf'"),
        ("TANDEM_TF__ADDRESS", "8500", "TANDEM_TF__ADDRESS: '8500' is not host:port"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(variable: str, value: str, says: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tandem", "up"],
        cwd=ROOT,
        env=os.environ | {variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"{says}.*\n", result.stderr)


def test_the_command_line_works_without_the_workers_environments(tmp_path: Path) -> None:
    """Nothing of torch or tensorflow is imported by the supervisor."""
    program = "import json, sys, tandem.up, tandem.cli; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.check_output([sys.executable, "-c", program], cwd=ROOT))
    assert not {"torch", "tensorflow", "keras"} & set(modules)
