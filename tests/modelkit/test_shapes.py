"""The bundled detector, as packaged: what the gateway makes of what its artifacts say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from gateway.images.geometry import Geometry
from gateway.images.preprocess import preprocess
from gateway.tasks.base import Limits
from gateway.tasks.boxes import Boxes
from gateway.tasks.detect import Detect
from modelkit.labelled import LabelledPicture
from modelkit.spec import RUNTIME_NAMES, RuntimeName, read
from models.shapes.evaluate import MIN_SCORE, mean_average_precision
from models.shapes.recipe import RECIPE
from models.shapes.scenes import HELD_OUT
from tests.modelkit.builds import Built


@pytest.fixture(scope="module")
def scenes() -> Sequence[LabelledPicture]:
    return RECIPE.held_out()


@pytest.fixture(scope="module")
def found(
    built: Built, scenes: Sequence[LabelledPicture], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[RuntimeName, list[Boxes]]:
    """What each runtime finds in the held-out scenes, in pixels of the scenes."""
    made, folder = read(built.store / "shapes" / "1"), tmp_path_factory.mktemp("ask")
    tensors = np.concatenate([preprocess(each.picture, made.input) for each in scenes])
    limits = Limits(most=RECIPE.candidates, min_score=MIN_SCORE)
    answers: dict[RuntimeName, list[Boxes]] = {}
    for runtime in RUNTIME_NAMES:
        outputs = built.ask("shapes", runtime, tensors, folder)
        answers[runtime] = [
            Detect()
            .find(
                made,
                {name: array[number : number + 1] for name, array in outputs.items()},
                Geometry.of(each.picture.size, made.input),
                limits,
            )
            .boxes
            for number, each in enumerate(scenes)
        ]
    return answers


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_held_out_scenes_are_found_with_a_mean_average_precision_of_ninety_percent(
    found: Mapping[RuntimeName, list[Boxes]], scenes: Sequence[LabelledPicture], runtime: RuntimeName
) -> None:
    assert mean_average_precision(found[runtime], scenes) >= 0.9


def test_the_package_records_how_many_scenes_are_wholly_right(built: Built) -> None:
    record = read(built.store / "shapes" / "1").proof
    assert (record.passed, record.pictures, record.agreeing) == (True, len(HELD_OUT), len(HELD_OUT))
    assert record.distinct > 200
    for right in record.correct.values():
        assert RECIPE.minimum_accuracy <= right / record.pictures < 1
