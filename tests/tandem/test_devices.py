"""Where the embedded stack puts both runtimes.

The machine's GPU, and what the frameworks say of it, are made up where a test is about a machine with one. The trials
themselves are run for real, with the GPUs hidden.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import Settings, TfSettings, WorkersSettings
from tandem import devices, stack
from tandem.devices import Choice
from tandem.preflight import Problem

Interpreters = Callable[[str], Path]
WITHOUT_GPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}


def choose(python: Interpreters, has_gpu: bool = True, device: str = "auto") -> Choice:
    settings = Settings(workers=WorkersSettings.model_validate({"device": device}))
    return asyncio.run(devices.choose(settings, WITHOUT_GPU, has_gpu=lambda: has_gpu, python=python))


def nobody(name: str) -> Path:
    """Where asking is wrong."""
    raise AssertionError(name)


@pytest.fixture
def says(tmp_path: Path) -> Callable[..., Interpreters]:
    """Interpreters that, whatever they are to run, write these lines and end with that status."""

    def interpreters(**said: str | tuple[int, str]) -> Interpreters:
        for name, each in said.items():
            status, text = each if isinstance(each, tuple) else (0, each)
            (tmp_path / f"{name}.said").write_text(text)
            (tmp_path / name).write_text(f"#!/bin/sh\ncat {tmp_path / name}.said\nexit {status}\n")
            (tmp_path / name).chmod(0o755)
        return lambda name: tmp_path / name

    return interpreters


def gpus(*names: str) -> str:
    return f"W0000 cuda: noise before it\n{json.dumps({'gpus': names, 'reason': ''})}\n"


def no_gpu(reason: str) -> str:
    return f"{json.dumps({'gpus': [], 'reason': reason})}\n"


def test_without_a_gpu_both_run_on_the_cpu_and_no_framework_is_asked() -> None:
    choice = choose(nobody, has_gpu=False)
    assert (choice.device, choice.as_found) == ("cpu", True)
    assert "no NVIDIA GPU" in choice.said


def test_whoever_wants_the_cpu_gets_it_on_any_machine_and_no_framework_is_asked() -> None:
    choice = choose(nobody, device="cpu")
    assert (choice.device, choice.as_found) == ("cpu", True)
    assert "TANDEM_WORKERS__DEVICE" in choice.said


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_both_run_on_the_gpu_if_both_can(says: Callable[..., Interpreters], device: str) -> None:
    choice = choose(says(torch=gpus("NVIDIA T4"), tf=gpus("Tesla T4")), device=device)
    assert (choice.device, choice.as_found) == ("gpu", True)
    assert "both runtimes run on the GPU, Tesla T4" in choice.said


def test_of_several_gpus_it_says_that_one_runtime_uses_more_and_how_to_be_even(
    says: Callable[..., Interpreters],
) -> None:
    choice = choose(says(torch=gpus("NVIDIA T4", "NVIDIA T4"), tf=gpus("Tesla T4", "Tesla T4")))
    assert choice.device == "gpu"
    assert "TorchServe on 2" in choice.said
    assert "CUDA_VISIBLE_DEVICES=0" in choice.said


@pytest.mark.parametrize(
    ("torch", "tf", "reason"),
    [
        pytest.param(
            gpus("T4"), no_gpu("it finds no GPU"), r"TensorFlow cannot use the GPU \(it finds no GPU\)", id="only torch"
        ),
        pytest.param(
            no_gpu("driver too old"), gpus("T4"), r"PyTorch cannot use the GPU \(driver too old\)", id="only tf"
        ),
        pytest.param(no_gpu("a"), no_gpu("b"), r"PyTorch .*\(a\); TensorFlow .*\(b\)", id="neither"),
        pytest.param(gpus("T4"), (1, "ImportError: x\n"), r"its trial exited with 1: ImportError: x", id="crash"),
        pytest.param(gpus("T4"), "nothing\n", r"its trial exited with 0: nothing", id="no answer"),
    ],
)
def test_if_one_cannot_both_run_on_the_cpu_and_it_says_which_why_and_what_to_do(
    says: Callable[..., Interpreters], torch: str, tf: str, reason: str
) -> None:
    python = says(torch=torch, tf=tf)
    choice = choose(python)
    assert (choice.device, choice.as_found) == ("cpu", False)
    assert choice.said.startswith("both runtimes run on the CPU: ")
    assert "nvidia-smi" in choice.said
    with pytest.raises(Problem, match=reason):
        choose(python, device="gpu")


def test_a_gpu_that_is_demanded_and_not_there_is_a_problem_that_says_what_to_do() -> None:
    with pytest.raises(
        Problem, match=r"TANDEM_WORKERS__DEVICE is gpu and there is no NVIDIA GPU .* set it to auto or cpu"
    ):
        choose(nobody, has_gpu=False, device="gpu")


def test_a_framework_that_does_not_answer_is_given_up_and_ended(
    says: Callable[..., Interpreters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "PATIENCE_S", 0.2)
    python = says(torch=gpus("T4"), tf=gpus("T4"))
    (tmp_path / "tf").write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 600\n")
    choice = choose(python)
    assert "TensorFlow cannot use the GPU (no answer in" in choice.said
    if (tmp_path / "pid").exists():  # it was given up before it ran at all otherwise
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_missing_environment_is_a_reason(tmp_path: Path) -> None:
    choice = choose(lambda name: tmp_path / name / "python")
    assert "cannot be started: No such file or directory" in choice.said


def test_the_real_frameworks_say_why_they_cannot_use_a_gpu_that_is_hidden_from_them() -> None:
    choice = choose(stack.python)
    assert (choice.device, choice.as_found) == ("cpu", False)
    assert "PyTorch cannot use the GPU (" in choice.said
    assert "TensorFlow cannot use the GPU (it finds no GPU" in choice.said
    assert "trial" not in choice.said


def test_on_the_cpu_the_gpus_are_hidden_from_both_and_the_gateway_says_cpu() -> None:
    assert Choice("cpu", "").environ(Settings()) == {
        "TANDEM_TORCH__DEVICE": "cpu",
        "TANDEM_TF__DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_on_the_gpu_nothing_is_hidden_and_what_the_settings_say_of_a_device_stays() -> None:
    settings = Settings(tf=TfSettings(device="t4"))
    assert Choice("gpu", "").environ(settings) == {"TANDEM_TORCH__DEVICE": "gpu"}
