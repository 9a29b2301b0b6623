"""A package in 16 bits, built for real, and what its proof must still refuse."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from modelkit import package, parity, samples
from modelkit.children import ROOT, python
from modelkit.predictions import Outputs
from modelkit.spec import RUNTIME_NAMES, ModelSpec, ParityRecord, RuntimeName, read
from models.digits.recipe import RECIPE as DIGITS
from models.shapes.recipe import RECIPE as SHAPES
from tests.modelkit.builds import Built

Tensors = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the digits in bf16."""
    folder = tmp_path_factory.mktemp("reduced") / "digits" / "1"
    package.build(DIGITS, folder, lambda _: None, "bf16")
    return folder


def test_the_package_says_its_precision_and_how_it_agrees_with_itself_in_fp32(reduced: Path) -> None:
    made = read(reduced)
    assert (made.precision, list(made.parity)) == ("bf16", ["bf16"])
    assert made.proof.passed
    assert set(made.proof.against_fp32) == set(RUNTIME_NAMES)
    for each in made.proof.against_fp32.values():
        assert each.agreeing >= 0.99 * made.proof.pictures
        assert each.max_score_difference > 0, "the artifact in 16 bits is the one in 32"
    for right in made.proof.correct.values():
        assert right / made.proof.pictures >= DIGITS.minimum_accuracy


def test_it_is_current_in_its_own_precision_only(reduced: Path) -> None:
    assert package.is_current(DIGITS, reduced, "bf16")
    assert not package.is_current(DIGITS, reduced, "fp32")


def test_a_form_in_that_precision_is_packaged_and_timed_beside_those_in_fp32(reduced: Path) -> None:
    for record in read(reduced).artifacts.values():
        inside = {form for form in record.candidates_ms if form.endswith("-bf16")}
        assert record.form in inside
        assert record.candidates_ms[record.form] == min(record.candidates_ms[form] for form in inside)
        assert record.form.removesuffix("-bf16") in record.candidates_ms


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_convolutions_are_in_bf16_and_outputs_in_fp32(reduced: Path, runtime: RuntimeName) -> None:
    artifact = reduced / "torch" / "model.pt" if runtime == "torch" else reduced / "tf"
    done = subprocess.run(
        [python(runtime), ROOT / "tests" / "modelkit" / "arithmetic.py", artifact],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["kernels"]) == {"bfloat16"}
    assert found["outputs"] == {"scores": "float32"}


@pytest.mark.parametrize(("model", "side"), [("digits", 32), ("shapes", SHAPES.input.height)], ids=["digits", "shapes"])
def test_what_is_compiled_says_what_the_torchscript_says(built: Built, model: str, side: int) -> None:
    """Up to the compiler: what it gets of each bundled model's graph, at other batches than it was read with."""
    artifact = built.store / model / "1" / "torch" / "model.pt"
    done = subprocess.run(
        [python("torch"), "-m", "tests.modelkit.replay", artifact, str(side)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def red_and_blue_swapped(right: Tensors) -> Tensors:
    return right[..., ::-1].copy()


def another_mean(right: Tensors) -> Tensors:
    """As if 0.45 were subtracted for 0.5."""
    return np.clip(right.astype(np.int32) + 12, 0, 255).astype(np.uint8)


def another_resize(right: Tensors) -> Tensors:
    """Every second pixel twice: what nearest neighbours make of a picture."""
    return right[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parametrize("fault", [red_and_blue_swapped, another_mean, another_resize], ids=lambda each: each.__name__)
def test_what_is_not_rounding_is_refused_in_bf16_too(
    built: Built, tmp_path: Path, fault: Callable[[Tensors], Tensors]
) -> None:
    """One runtime sees the pictures, the other what a wrong preprocessing made of them; held to the bounds of bf16."""
    made = read(built.store / "shapes" / "1")
    right = samples.tensors([each.picture for each in SHAPES.held_out()[:40]], made.input)
    torch = built.ask("shapes", "torch", right, tmp_path)
    assert compared(made, torch, built.ask("shapes", "tf", right, tmp_path)).passed
    record = compared(made, torch, built.ask("shapes", "tf", fault(right), tmp_path))
    assert not record.passed, parity.report(record)


def compared(made: ModelSpec, torch: Outputs, tf: Outputs) -> ParityRecord:
    names = [str(number) for number in range(len(torch["scores"]))]
    return parity.compare(made.model_copy(update={"precision": "bf16"}), {"torch": torch, "tf": tf}, names)
