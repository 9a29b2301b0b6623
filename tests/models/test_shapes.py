"""The shapes detector: the same network in both memory layouts, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from PIL import Image

from modelkit import children
from modelkit.labelled import LabelledPicture
from modelkit.spec import RUNTIME_NAMES, RuntimeName
from models.shapes.evaluate import MIN_SCORE, Answers, ask, detections, mean_average_precision
from models.shapes.recipe import RECIPE
from models.shapes.scenes import HELD_OUT
from models.shapes.train import SAMPLES, samples

both_runtimes = pytest.mark.parametrize("runtime", RUNTIME_NAMES)


@pytest.fixture(scope="module")
def pictures() -> Sequence[LabelledPicture]:
    """The held-out scenes, then the samples as they are in their files."""
    files = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.iterdir())]
    shown = [each._replace(picture=file) for each, file in zip(samples(), files, strict=True)]
    return [*RECIPE.held_out(), *shown]


@pytest.fixture(scope="module")
def answers(pictures: Sequence[LabelledPicture]) -> Mapping[RuntimeName, Answers]:
    """The network channels-first in PyTorch, channels-last in TensorFlow: about a quarter of a minute."""
    return {runtime: ask(runtime, pictures) for runtime in RUNTIME_NAMES}


def test_both_memory_layouts_give_the_same_candidates(answers: Mapping[RuntimeName, Answers]) -> None:
    torch, tf = answers["torch"], answers["tf"]
    assert torch["boxes"].shape == (len(HELD_OUT) + len(samples()), 500, 4)
    np.testing.assert_allclose(torch["boxes"], tf["boxes"], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(torch["class_scores"], tf["class_scores"], atol=1e-4)
    assert ((tf["class_scores"] >= 0) & (tf["class_scores"] <= 1)).all()
    assert (tf["boxes"][..., :2] < tf["boxes"][..., 2:]).all()


@both_runtimes
def test_the_weights_have_a_mean_average_precision_of_ninety_percent_on_held_out_scenes(
    answers: Mapping[RuntimeName, Answers], pictures: Sequence[LabelledPicture], runtime: RuntimeName
) -> None:
    scenes = pictures[: len(HELD_OUT)]
    found = detections(answers[runtime], pictures, MIN_SCORE)[: len(HELD_OUT)]
    assert mean_average_precision(found, scenes) >= 0.9


def test_the_served_network_is_the_trained_one_with_its_norms_folded() -> None:
    children.run("tf", "tests.models.fold")


def test_the_weights_and_samples_are_small_enough_for_the_repository() -> None:
    assert RECIPE.weights.stat().st_size < 3_000_000
    assert {path.name: path.stat().st_size for path in SAMPLES.iterdir() if path.stat().st_size >= 100_000} == {}


def test_the_samples_are_the_scenes_that_they_are_said_to_be(pictures: Sequence[LabelledPicture]) -> None:
    for shown, drawn in zip(pictures[len(HELD_OUT) :], samples(), strict=True):
        difference = np.abs(np.asarray(shown.picture, dtype=int) - np.asarray(drawn.picture))
        assert difference.mean() < 12  # a JPEG of a noisy picture
