"""`docker compose up` for real: what is written in the compose files holds in the running stack."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.compose.conftest import BASE, UP, Running
from tests.compose.requests import predict, steady_requests
from tests.support.compose import docker, inspect, layers, own_bytes
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

KILL_THE_SERVER = """
import os, pathlib, signal
for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if command.read_bytes().split(b"\\0")[0].endswith(b"/bin/java"):
        os.kill(int(command.parent.name), signal.SIGKILL)
"""
GATEWAY_MB = 350
INSTALLED = {"gateway": 2, "torch_worker": 2, "tf_worker": 2, "packages": 4}
"""Layers on top of the base image that hold no code of ours: the user, and each environment."""


@pytest.mark.parametrize("runtime", ["torch", "tf"])
def test_both_runtimes_answer_through_the_published_port(running: Running, runtime: str) -> None:
    answer = predict(running, runtime)
    assert answer.status_code == 200, answer.text
    assert answer.json()["runtime"] == runtime
    assert answer.json()["results"][0]["predictions"][0]["label"] == "7"


def test_every_container_is_healthy(running: Running) -> None:
    for container in running.compose.containers():
        name = container["Name"]
        if container["State"]["Running"]:
            running.compose.await_healthy(container["Config"]["Labels"]["com.docker.compose.service"])
        else:
            assert "packages" in name
            assert container["State"]["ExitCode"] == 0


def test_containers_run_without_privileges_and_within_their_limits(running: Running) -> None:
    for container in running.compose.containers():
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["NanoCpus"] > 0, name
        assert host["Memory"] > 0, name
        if container["State"]["Running"]:
            status = docker("exec", container["Id"], "cat", "/proc/1/status")
            assert "CapEff:\t0000000000000000" in status, name
            with pytest.raises(RuntimeError, match="Read-only file system"):
                docker("exec", container["Id"], "sh", "-c", "echo > /made-by-a-test")


def test_the_host_reaches_the_gateway_and_grafana_and_the_workers_reach_nobody_outside(running: Running) -> None:
    published = {
        container["Config"]["Labels"]["com.docker.compose.service"]
        for container in running.compose.containers()
        if any(container["NetworkSettings"]["Ports"].values())
    }
    assert published == {"gateway", *(["grafana"] if running.official else [])}
    for service in ("torch_worker", "tf_worker"):
        for network in running.compose.container(service)["NetworkSettings"]["Networks"].values():
            assert inspect(network["NetworkID"])["Internal"], service


def test_the_gateways_image_is_small_and_has_neither_framework(running: Running) -> None:
    assert own_bytes(running.image("gateway"), BASE) < GATEWAY_MB * 1e6
    script = "import importlib.util as u; print([m for m in ('torch', 'tensorflow') if u.find_spec(m)])"
    assert running.compose.execute("gateway", "python", "-c", script).strip() == "[]"


@pytest.mark.parametrize(
    ("service", "changed"),
    [
        ("gateway", "gateway/app.py"),
        ("torch_worker", "torch_worker/handler.py"),
        ("tf_worker", "tf_worker/server.py"),
        ("packages", "modelkit/add.py"),
    ],
)
def test_after_a_change_of_code_what_is_installed_comes_from_the_cache(
    running: Running, tmp_path: Path, service: str, changed: str
) -> None:
    if service == "tf_worker" and running.official:
        pytest.skip("the official image is not built here")
    copy_context(tmp_path)
    with (tmp_path / changed).open("a") as file:
        file.write("# changed\n")
    before = layers(running.image(service))
    tag = running.compose.build_elsewhere(service, tmp_path)
    try:
        after = layers(tag)
    finally:
        docker("rmi", tag)
    different = [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert different, "the change is not in the image"
    assert different[0] >= len(layers(BASE)) + INSTALLED[service]


def copy_context(folder: Path) -> None:
    """Copy what .dockerignore lets through, and itself, into `folder`."""
    ignored = shutil.ignore_patterns("__pycache__")
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (".dockerignore", *(line[1:] for line in lines if line.startswith("!"))):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, folder / name)


def test_the_log_of_a_container_is_one_json_object_a_line(running: Running) -> None:
    answer = predict(running, "torch")
    lines = [json.loads(line) for line in docker("logs", running.compose.container("gateway")["Id"]).splitlines()]
    assert any(line.get("request_id") == answer.json()["request_id"] for line in lines)


def test_a_worker_that_dies_is_started_again(running: Running) -> None:
    container = running.compose.container("torch_worker")
    # Not by `docker kill`, after which no restart policy applies.
    running.compose.execute("torch_worker", "python", "-c", KILL_THE_SERVER)
    wait_until(lambda: inspect(container["Id"])["RestartCount"] == 1, lambda: inspect(container["Id"])["State"])
    assert predict(running, "tf").status_code == 200
    wait_until(lambda: predict(running, "torch").status_code == 200, lambda: running.compose.logs("gateway"))


def test_one_worker_stopped_leaves_the_other_and_sigterm_ends_every_server_in_time(
    running: Running, figures: list[str]
) -> None:
    with steady_requests(running, "tf") as answers:
        wait_until(lambda: len(answers) > 10, lambda: answers)
        running.compose.run("stop", "torch_worker")
    assert {answer.status_code for answer in answers} == {200}
    assert predict(running, "torch").json()["code"] == "runtime_unavailable"
    running.compose.run("stop")
    for container in running.compose.containers():
        assert container["State"]["ExitCode"] in (0, 128 + signal.SIGTERM), container["Name"]
    start_s = time.monotonic()
    running.compose.run("up", "--detach", *UP)
    wait_until(running.compose.ready, lambda: running.compose.logs("gateway"))
    figures.append(
        f"both runtimes ready {time.monotonic() - start_s:.0f} s after a later `up`, with packages built before"
    )
    assert predict(running, "torch").status_code == 200
