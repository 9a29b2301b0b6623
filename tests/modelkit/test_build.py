"""`python -m modelkit build`, run for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import psutil
import pytest

from gateway.settings import Settings
from modelkit import package
from modelkit.batching import Batching
from modelkit.children import ROOT
from modelkit.parity import ParityFailure
from models.digits.recipe import RECIPE as DIGITS
from tests.modelkit.builds import Built, run_build

# Measured beside the forms that a worker can load, so that a faster one would be noticed.
NOT_LOADABLE = ("keras-as-exported",)


def modified(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to run something in a worker environment fails."""
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", "/nowhere/python")
    monkeypatch.setenv("TANDEM_TF_PYTHON", "/nowhere/python")


def test_the_package_records_parity_within_tolerance_and_accuracy(built: Built) -> None:
    record = built.spec.parity["fp32"]
    assert record.passed
    assert record.pictures == 360
    assert record.max_score_difference <= 1e-4
    assert record.distinct == 10
    for right in record.correct.values():
        assert right / record.pictures >= 0.985


def test_the_packaged_forms_are_the_fastest_of_those_that_a_worker_can_load(built: Built) -> None:
    torch, tf = built.spec.artifacts["torch"], built.spec.artifacts["tf"]
    loadable = {form: ms for form, ms in torch.candidates_ms.items() if form not in NOT_LOADABLE}
    assert len(loadable) >= 2
    assert loadable[torch.form] == min(loadable.values())
    assert set(NOT_LOADABLE) < set(torch.candidates_ms)
    assert tf.candidates_ms[tf.form] == min(tf.candidates_ms.values())


def test_the_serving_view_holds_what_each_worker_reads(built: Built) -> None:
    with ZipFile(built.serving / "torch" / "digits-1.mar") as archive:
        assert archive.read("model.pt") == (built.package / "torch" / "model.pt").read_bytes()
    folder = built.serving / "tf" / "digits" / "1"
    assert (folder / "saved_model.pb").read_bytes() == (built.package / "tf" / "saved_model.pb").read_bytes()
    config = (built.serving / "tf" / "models.config").read_text()
    assert f'base_path: "{built.serving}/tf/digits"' in config
    assert "model_version_policy { all {} }" in config
    assert Batching.read(built.serving) == Batching.of(Settings())


def test_long_steps_are_announced_and_timed(built: Built) -> None:
    assert "digits: exporting for torch …\ndigits: exporting for torch: " in built.output


@pytest.mark.usefixtures("no_workers")
def test_a_second_build_changes_nothing_and_starts_nothing(built: Built) -> None:
    before = modified(built.store.parent)
    done = run_build(built.store, built.serving)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lock = built.store / ".lock"
    assert {**modified(built.store.parent), lock: 0} == {**before, lock: 0}


def test_changed_worker_code_makes_the_archive_anew_and_nothing_else(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TF_PYTHON", "/nowhere/python")
    (built.serving / "torch" / ".digits-1.made-of").write_text("the code before it was changed")
    before = modified(built.package), modified(built.serving / "tf")
    made = (built.serving / "torch" / "digits-1.mar").stat().st_mtime_ns
    done = run_build(built.store, built.serving)
    assert done.returncode == 0, done.stderr
    assert (modified(built.package), modified(built.serving / "tf")) == before
    assert (built.serving / "torch" / "digits-1.mar").stat().st_mtime_ns > made


def test_a_damaged_artifact_is_not_current(built: Built, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    subprocess.run(["cp", "-r", built.package, copy], check=True)
    assert package.is_current(DIGITS, copy, "fp32")
    (copy / "torch" / "model.pt").write_bytes(b"")
    assert not package.is_current(DIGITS, copy, "fp32")


def test_changed_sources_are_not_current(built: Built, tmp_path: Path) -> None:
    assert package.is_current(DIGITS, built.package, "fp32")
    assert not package.is_current(replace(DIGITS, code=DIGITS.code[:1]), built.package, "fp32")


def test_another_precision_than_asked_for_is_not_current(built: Built) -> None:
    assert not package.is_current(DIGITS, built.package, "bf16")


def test_artifacts_that_disagree_are_refused_and_no_package_is_left(tmp_path: Path) -> None:
    """The fault is real: one of two graphs reads the picture with rows and columns swapped."""
    faulty = replace(DIGITS, architecture="tests.modelkit.transposed")
    with pytest.raises(ParityFailure, match=r"not the same model: \d+ of 360 pictures") as refusal:
        package.build(faulty, tmp_path / "1", lambda _: None)
    assert "output scores: greatest difference 0.9" in str(refusal.value)
    assert "(on held-out picture " in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_two_artifacts_that_agree_on_wrong_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityFailure, match=r"answers \d+ of 360 held-out pictures right"):
        package.build(replace(DIGITS, minimum_accuracy=1.1), tmp_path / "1", lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_workers")
def test_a_wrong_setting_is_named_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_WORKERS__MAX_BATCH_SIZE", "0")
    done = run_build(tmp_path / "store", tmp_path / "serving")
    assert done.returncode == 1
    assert "TANDEM_WORKERS__MAX_BATCH_SIZE: Input should be greater" in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("no_workers")
def test_a_missing_worker_environment_is_named(tmp_path: Path) -> None:
    done = run_build(tmp_path / "store", tmp_path / "serving")
    assert done.returncode == 1
    assert "/nowhere/python cannot be run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_an_interrupted_build_ends_its_child_and_leaves_no_package(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    worker = tmp_path / "python"
    worker.write_text(f"#!/bin/sh\necho $$ > {started}\nexec sleep 600\n")
    worker.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "modelkit", "build", "--store", tmp_path / "store", "--serving", tmp_path / "serving"],
        cwd=ROOT,
        env={**os.environ, "TANDEM_TORCH_PYTHON": str(worker), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    ) as build:
        child = psutil.Process(int(started.read_text()))
        build.send_signal(number)
        assert build.wait(20) == code
    child.wait(20)
    assert not (tmp_path / "store" / "digits").exists()
    assert list(tmp_path.glob("tandem-modelkit-*")) == []
