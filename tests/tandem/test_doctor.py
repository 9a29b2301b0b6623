"""`tandem doctor`, on this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.settings import Settings
from tandem.cli import app
from tandem.doctor import Finding, examine
from tandem.stack import read_settings
from tests.support.packages import write_store
from tests.support.stack import HOST, stack_environment


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in stack_environment(tmp_path / "var").items():
        monkeypatch.setenv(name, value)
    return read_settings()


def findings(settings: Settings, **where: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(settings, **where)}


def test_on_a_machine_that_has_everything_all_is_well(settings: Settings) -> None:
    found = findings(settings)
    assert [finding for finding in found.values() if not finding.ok] == []
    assert "torchserve 0.12.0" in found[".venv-torch"].said
    assert "tensorflow 2." in found[".venv-tf"].said
    assert "make up" in found["packages"].said
    assert "both runtimes alike: batches of up to 8 pictures" in found["fairness"].said


def test_a_port_in_use_is_named_with_what_moves_it(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, settings.torch.metrics_port))
        taken.listen()
        finding = findings(settings)[f"port {settings.torch.metrics_port}"]
    assert not finding.ok
    assert "TANDEM_TORCH__METRICS_PORT" in finding.said


def test_a_gpu_that_a_runtime_cannot_use_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_GPU", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = findings(settings)["device"]
    assert not finding.ok
    assert "TensorFlow cannot use the GPU" in finding.said


def test_what_one_runtime_alone_is_given_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_TORCH__WORKERS", "4")
    finding = findings(read_settings())["fairness"]
    assert not finding.ok
    assert "TANDEM_WORKERS__REPLICAS" in finding.said


def test_a_missing_environment_is_wrong_and_says_how_to_make_it(settings: Settings, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((Path(__file__).parents[2] / name).read_text())
    finding = findings(settings, root=tmp_path)[".venv-tf"]
    assert not finding.ok
    assert "make setup" in finding.said


def test_each_package_is_said_with_its_proof_and_a_broken_one_with_its_reason(settings: Settings) -> None:
    write_store(settings.store, 1, 2)
    (settings.store / "digits" / "2" / "model.yaml").write_text("name: digits\n")
    found = findings(settings)
    assert found["package digits 1"].said.startswith("10 of 10 pictures with the same predictions")
    assert not found["package digits 2"].ok
    assert "model.yaml" in found["package digits 2"].said


@pytest.mark.usefixtures("settings")
def test_the_command_ends_with_1_when_something_is_wrong(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
    (tmp_path / "var" / "store" / "digits" / "1").mkdir(parents=True)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert '"what": "package digits 1", "ok": false' in result.stdout
