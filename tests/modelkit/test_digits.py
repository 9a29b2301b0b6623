"""The bundled model, as packaged: what it says about pictures that people upload."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from gateway.images.preprocess import preprocess
from modelkit.children import ROOT
from modelkit.held_out import tensors
from modelkit.spec import RUNTIME_NAMES, RuntimeName
from models.digits import data
from models.digits.recipe import RECIPE as DIGITS
from tests.modelkit.builds import Built

SAMPLES = sorted((ROOT / "models" / "digits" / "samples").iterdir())
Answers = dict[RuntimeName, npt.NDArray[np.intp]]


@pytest.fixture(scope="module")
def ask(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The best class on each runtime: of the samples, in order of their names, then of the held-out scans inverted."""
    folder = tmp_path_factory.mktemp("ask")
    samples = [preprocess(Image.open(path).convert("RGB"), DIGITS.input) for path in SAMPLES]
    with np.load(DIGITS.held_out) as held_out:
        inverted = tensors(255 - held_out["pictures"], DIGITS.input)
    inputs = np.concatenate([*samples, inverted])
    return {runtime: built.ask("digits", runtime, inputs, folder)["scores"].argmax(axis=1) for runtime in RUNTIME_NAMES}


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_every_sample_is_answered_as_it_is_named(ask: Answers, runtime: RuntimeName) -> None:
    assert {path.name: str(answer) for path, answer in zip(SAMPLES, ask[runtime], strict=False)} == {
        path.name: path.stem for path in SAMPLES
    }


def test_there_is_a_png_of_each_digit_and_some_jpegs() -> None:
    names = {path.name for path in SAMPLES}
    assert {f"{digit}.png" for digit in range(10)} <= names
    assert sum(name.endswith(".jpg") for name in names) >= 2


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_dark_digits_on_light_paper_are_read_as_well(ask: Answers, runtime: RuntimeName) -> None:
    with np.load(DIGITS.held_out) as held_out:
        right = ask[runtime][len(SAMPLES) :] == held_out["labels"]
    assert right.mean() >= 0.985


def test_the_held_out_pictures_are_those_of_the_split_that_training_left_out() -> None:
    train, held_out = data.split()
    assert (len(train.labels), len(held_out.labels)) == (1437, 360)
    with np.load(DIGITS.held_out) as committed:
        np.testing.assert_array_equal(committed["pictures"], held_out.pictures)
        np.testing.assert_array_equal(committed["labels"], held_out.labels)


def test_the_weights_are_small_enough_for_the_repository() -> None:
    assert DIGITS.weights.stat().st_size < 1_000_000
