"""The bundled detector on the running stack."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import httpx
import pytest
from PIL import Image

from models.shapes.recipe import RECIPE
from models.shapes.train import SAMPLES, samples
from tests.support.stack import Stack

SCENE = SAMPLES / "scene-1.jpg"


@pytest.fixture(scope="module")
def answer(stack: Stack) -> dict[str, Any]:
    """Both runtimes about a sample."""
    stack.wait_until_ready("shapes")
    files = {"image": SCENE.read_bytes()}
    answer: dict[str, Any] = httpx.post(f"{stack.url}/v1/models/shapes/compare", files=files, timeout=30).json()
    return answer


@pytest.mark.parametrize("runtime", ["torch", "tf"])
def test_the_shapes_of_a_sample_are_found_where_they_are(answer: dict[str, Any], runtime: str) -> None:
    scene, (result,) = samples()[0], answer["runtimes"][runtime]["results"]
    assert (result["image"]["width"], result["image"]["height"]) == scene.picture.size
    truth = Counter(RECIPE.labels[class_id] for class_id in scene.classes)
    assert Counter(each["label"] for each in result["predictions"]) == truth
    middles = sorted((x1 + x2) / 2 for x1, _, x2, _ in scene.boxes.tolist())
    found = sorted((each["box"]["x1"] + each["box"]["x2"]) / 2 for each in result["predictions"])
    assert found == pytest.approx(middles, abs=15)


def test_both_runtimes_find_the_same(answer: dict[str, Any]) -> None:
    assert answer["agreement"]["agree"] is True
    assert answer["agreement"]["min_iou"] > 0.99
    assert answer["agreement"]["max_score_difference"] < 1e-4


def test_a_sample_comes_back_with_its_shapes_drawn(client: httpx.Client) -> None:
    drawn = client.post(
        "/v1/models/shapes/predict", files={"image": SCENE.read_bytes()}, headers={"accept": "image/png"}
    )
    assert drawn.headers["content-type"] == "image/png"
    picture, original = Image.open(io.BytesIO(drawn.content)), Image.open(SCENE)
    assert picture.size == original.size
    assert picture.convert("RGB").tobytes() != original.convert("RGB").tobytes()
