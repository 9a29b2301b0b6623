from __future__ import annotations

import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torch_worker.sample import MakePackage
from torch_worker import __main__ as launcher
from torch_worker import config, tuning
from torch_worker.archive import Archive, build_archive

PORTS = config.Ports(1, 2, 3, 4, 5)
SIZES = config.Sizes.of([])


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Of a launch that is to fail before it becomes Java."""
    return subprocess.run(
        [sys.executable, "-m", "torch_worker", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_missing_serving_folder_is_one_line(tmp_path: Path) -> None:
    done = launch("--serving", tmp_path / "none", "--work-dir", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"torch_worker: the serving folder {tmp_path / 'none'} does not exist; build the model packages first\n"
    )


def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path, taken_port: int) -> None:
    done = launch("--serving", tmp_path, "--work-dir", tmp_path / "work", "--metrics-port", taken_port)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"torch_worker: metrics port 127.0.0.1:{taken_port} is in use"


def test_a_port_given_twice_is_refused(tmp_path: Path) -> None:
    done = launch("--serving", tmp_path, "--work-dir", tmp_path / "work", "--grpc-port", 18799, "--http-port", 18799)
    assert done.stderr.splitlines()[-1] == "torch_worker: port 18799 is given twice"


def test_a_certificate_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    files = "--certificate", tmp_path / "cert.pem", "--key", tmp_path / "key.pem"
    done = launch("--serving", tmp_path, "--work-dir", tmp_path / "work", *files)
    assert done.stderr.splitlines()[-1] == (
        f"torch_worker: {tmp_path / 'cert.pem'} cannot be read: No such file or directory"
    )


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    done = launch("--serving", tmp_path, "--work-dir", tmp_path / "work", "--certificate", tmp_path / "cert.pem")
    assert "--certificate and --key belong together" in done.stderr


def test_only_with_a_certificate_the_grpc_ports_have_tls() -> None:
    layout, tls = config.Layout(Path("/s"), Path("/w")), config.Tls(Path("/c.pem"), Path("/k.pem"))
    expected = ["enable_grpc_ssl=true", "certificate_file=/c.pem", "private_key_file=/k.pem"]
    assert config.properties(layout, "127.0.0.9", PORTS, 1, SIZES, tls).splitlines()[-3:] == expected
    assert "ssl" not in config.properties(layout, "127.0.0.9", PORTS, 1, SIZES)


def test_a_work_folder_too_deep_for_unix_sockets_is_refused(tmp_path: Path) -> None:
    done = launch("--serving", tmp_path, "--work-dir", tmp_path / ("d" * 100))
    assert "too long for Unix sockets" in done.stderr.splitlines()[-1]


def test_a_running_torchserves_files_are_left_alone(tmp_path: Path, taken_port: int) -> None:
    (tmp_path / "work" / "tmp").mkdir(parents=True)
    (tmp_path / "work" / "tmp" / ".ts.sock.9000").touch()
    launch("--serving", tmp_path, "--work-dir", tmp_path / "work", "--grpc-port", taken_port)
    assert (tmp_path / "work" / "tmp" / ".ts.sock.9000").exists()


def test_an_archive_that_cannot_be_loaded_is_skipped_with_the_reason(
    make_package: MakePackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_archive(make_package(), tmp_path)
    (tmp_path / "corrupt-1.mar").write_bytes(b"nothing")
    assert launcher.find_archives(tmp_path) == [Archive("mean-1.mar", "mean", "1", 192, 32)]
    assert "skipped corrupt-1.mar: it is not a readable zip file" in capsys.readouterr().err


def test_every_version_of_a_model_is_loaded(make_package: MakePackage, tmp_path: Path) -> None:
    for version in (1, 2):
        build_archive(make_package(version=version), tmp_path)
    command = config.java_command(config.Layout(tmp_path, tmp_path), launcher.find_archives(tmp_path))
    assert command[command.index("--models") + 1 :] == ["mean=mean-1.mar", "mean=mean-2.mar"]


def test_all_five_ports_listen_on_the_given_host_only() -> None:
    lines = config.properties(config.Layout(Path("/s"), Path("/w")), "127.0.0.9", PORTS, 1, SIZES).splitlines()
    assert [line for line in lines if "address" in line] == [
        "inference_address=http://127.0.0.9:3",
        "management_address=http://127.0.0.9:4",
        "metrics_address=http://127.0.0.9:5",
        "grpc_inference_address=127.0.0.9",
        "grpc_management_address=127.0.0.9",
    ]
    assert "grpc_inference_port=1" in lines
    assert "grpc_management_port=2" in lines


def environment(inherited: dict[str, str], *, workers: int = 1, threads: int = 4) -> dict[str, str]:
    return config.environment(config.Layout(Path("/s"), Path("/w")), inherited, workers, threads, SIZES)


def test_workers_run_in_this_interpreter_and_see_no_other_python() -> None:
    made = environment({"PATH": "/bin", "PYTHONPATH": "/elsewhere", "TS_CONFIG_FILE": "/other", "HOME": "/h"})
    assert made["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert made["HOME"] == "/h"
    assert not {"PYTHONPATH", "TS_CONFIG_FILE"} & set(made)


@pytest.mark.parametrize(
    ("workers", "threads"),
    [pytest.param(1, "4", id="one"), pytest.param(3, "1", id="three"), pytest.param(8, "1", id="more than threads")],
)
def test_the_workers_of_a_model_share_the_threads(workers: int, threads: str) -> None:
    assert environment({}, workers=workers)["OMP_NUM_THREADS"] == threads


def test_what_is_set_from_outside_is_kept() -> None:
    outside = {"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": "5", "MALLOC_TRIM_THRESHOLD_": "6"}
    assert outside.items() <= environment(outside).items()
    assert "GOMP_SPINCOUNT" not in environment({"OMP_WAIT_POLICY": "PASSIVE"})


def archive(picture_bytes: int, answer_bytes: int) -> Archive:
    return Archive("m-1.mar", "m", "1", picture_bytes, answer_bytes)


@pytest.mark.parametrize(
    ("archives", "sizes"),
    [
        pytest.param([], (32 << 20, 128 << 20), id="no model"),
        pytest.param([archive(150_000, 4_000)], (32 << 20, 128 << 20), id="a small one"),
        pytest.param([archive(1, 200 << 20), archive(40 << 20, 1)], (40 << 20, 200 << 20), id="the largest of each"),
        pytest.param([archive(2**31, 2**32)], (2**31 - 1 - (64 << 10),) * 2, id="no more than an int of Java"),
    ],
)
def test_torchserve_has_room_for_the_largest_model(archives: list[Archive], sizes: tuple[int, int]) -> None:
    made = config.Sizes.of(archives)
    assert made == sizes
    lines = config.properties(config.Layout(Path("/s"), Path("/w")), "127.0.0.9", PORTS, 1, made).splitlines()
    for name, size in zip(("max_request_size", "max_response_size"), sizes, strict=True):
        assert f"{name}={size + (64 << 10)}" in lines


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("100000 100000\n", 1, id="one"),
        pytest.param("50000 100000\n", 1, id="half"),
        pytest.param("max 100000\n", len(os.sched_getaffinity(0)), id="no quota"),
        pytest.param(None, len(os.sched_getaffinity(0)), id="no file"),
    ],
)
def test_a_containers_cpu_quota_counts(tmp_path: Path, content: str | None, expected: int) -> None:
    quota = tmp_path / "cpu.max"
    if content is not None:
        quota.write_text(content)
    assert tuning.available_cpus(quota) == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        pytest.param(None, 2, id="all"),
        pytest.param("1", 1, id="one made visible"),
        pytest.param("", 0, id="all hidden"),
    ],
)
def test_gpus_are_counted_as_torchserve_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: int
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: One (UUID: GPU-1)'\necho 'GPU 1: Other (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launcher.count_gpus() == expected


def test_a_machine_without_nvidia_smi_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launcher.count_gpus() == 0


def test_the_log_configuration_writes_to_the_standard_output_only() -> None:
    tree = ET.parse(Path(config.__file__).with_name("log4j2.xml"))  # noqa: S314  (a file of ours)
    [appenders] = tree.iter("Appenders")
    assert [(appender.tag, appender.get("target")) for appender in appenders] == [("Console", "SYSTEM_OUT")]
