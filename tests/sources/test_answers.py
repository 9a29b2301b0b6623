"""What the models of docs/models.md answer over HTTP, on both runtimes, against independent references."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from gateway.tasks.boxes import iou
from modelkit.children import python
from tests.sources.conftest import MAKE, Workplace
from tests.support import coco

RUNTIMES = ["torch", "tf"]
DIGITS = ["keras-digits", "factory", "exported", "scripted", "onnx", "pair"]
Json = dict[str, Any]


def ask(client: httpx.Client, model: str, picture: Path, runtime: str, **parameters: Any) -> list[Json]:
    """The predictions about one picture."""
    answer = client.post(
        f"/v1/models/{model}/predict",
        params={"runtime": runtime, "timeout_ms": 60_000, **parameters},
        files={"image": picture.read_bytes()},
    )
    assert answer.status_code == 200, answer.text
    predictions: list[Json] = answer.json()["results"][0]["predictions"]
    return predictions


def scores(client: httpx.Client, model: str, pictures: list[Path], runtime: str, classes: int) -> npt.NDArray[Any]:
    """Class scores `[pictures, classes]`, by class id."""
    found = np.zeros((len(pictures), classes))
    for row, picture in enumerate(pictures):
        for each in ask(client, model, picture, runtime, top_k=classes):
            found[row, each["class_id"]] = each["score"]
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("model", DIGITS)
def test_a_network_of_digits_reads_scans_that_it_was_not_trained_on(
    workplace: Workplace, model: str, runtime: str
) -> None:
    """A wrong normalisation, colour order or order of a Flatten on the way would show."""
    pictures = sorted((workplace.folder / "scans").iterdir())
    with workplace.added(model).client as client:
        found = scores(client, model, pictures, runtime, 10).argmax(axis=1)
    right = [int(path.stem[-1]) == answer for path, answer in zip(pictures, found, strict=True)]
    assert np.mean(right) >= 0.85, np.mean(right)


def test_resnet50_answers_200_pictures_alike_with_many_different_answers(workplace: Workplace) -> None:
    pictures = sorted((workplace.folder / "photos").iterdir())
    with workplace.added("resnet").client as client:
        torch, tf = (scores(client, "resnet", pictures, runtime, 40) for runtime in RUNTIMES)
    assert len(pictures) == 200
    np.testing.assert_array_equal(torch.argmax(axis=1), tf.argmax(axis=1))
    assert len(np.unique(torch.argmax(axis=1))) >= 20
    assert np.abs(torch - tf).max() <= 1e-4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_resnet50_answers_as_torchvision_does_with_its_own_preprocessing(workplace: Workplace, runtime: str) -> None:
    pictures = sorted((workplace.folder / "photos").iterdir())[:20]
    reference = _reference("convert", "torchvision_reference.py", workplace.folder / "resnet50.pt", *pictures)
    with workplace.added("resnet").client as client:
        found = scores(client, "resnet", pictures, runtime, 40)
    assert np.abs(found - np.array(reference)).max() <= 1e-3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_keras_model_answers_as_keras_does_with_its_own_loading_of_pictures(
    workplace: Workplace, runtime: str
) -> None:
    pictures = sorted((workplace.folder / "photos").iterdir())[:20]
    reference = _reference("tf", "keras_reference.py", workplace.folder / "model.keras", *pictures)
    with workplace.added("keras-digits").client as client:
        found = scores(client, "keras-digits", pictures, runtime, 10)
    assert np.abs(found - np.array(reference)).max() <= 1e-3


@pytest.mark.parametrize("model", [*DIGITS, "efficientnet", "resnet", "yolo", "yolo-seg", "yolo-cls", "yolo-onnx"])
def test_both_runtimes_answer_side_by_side_and_agree(workplace: Workplace, model: str) -> None:
    with workplace.added(model).client as client:
        photo = (workplace.folder / "photo.jpg").read_bytes()
        answer = client.post(f"/v1/models/{model}/compare?timeout_ms=60000", files={"image": photo})
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["runtimes"]) == set(RUNTIMES)
    assert answer.json()["agreement"]["agree"] is True, answer.text


@pytest.mark.parametrize("model", ["yolo", "yolo-nms", "yolo-seg"])
def test_a_yolo_network_finds_the_same_boxes_on_both_runtimes(workplace: Workplace, model: str) -> None:
    with workplace.added(model).client as client:
        for picture in sorted((workplace.folder / "scenes").iterdir()):
            torch, tf = (ask(client, model, picture, runtime) for runtime in RUNTIMES)
            _assert_same(torch, tf, least_iou=0.99, score_within=1e-3)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("model", "checkpoint", "head"),
    [
        pytest.param("yolo", "yolo26n-shapes.pt", "end2end", id="end-to-end"),
        pytest.param("yolo-nms", "yolo26n-shapes.pt", "nms", id="nms"),
        pytest.param("yolo-onnx", "yolo26n-shapes.pt", "nms", id="onnx"),
        pytest.param("yolo-seg", "yolo26n-seg-shapes.pt", "end2end", id="segment"),
    ],
)
def test_a_yolo_network_finds_what_ultralytics_finds(
    workplace: Workplace, model: str, checkpoint: str, head: str, runtime: str
) -> None:
    pictures = sorted((workplace.folder / "scenes").iterdir())
    theirs = _ultralytics(workplace.folder, checkpoint, head)
    found = 0
    with workplace.added(model).client as client:
        for picture in pictures:
            expected = [
                each | {"box": dict(zip(("x1", "y1", "x2", "y2"), each["box"], strict=True))}
                for each in theirs[picture.name]
            ]
            answers = ask(client, model, picture, runtime)
            _assert_same(answers, expected, least_iou=0.95, score_within=0.05)
            found += len(answers)
            if model == "yolo-seg":
                _assert_same_masks(answers, expected)
    assert found >= len(pictures) // 2  # else there was nothing to compare


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_yolo_classifier_answers_as_ultralytics_does(workplace: Workplace, runtime: str) -> None:
    theirs = _ultralytics(workplace.folder, "yolo26n-cls-shapes.pt", "end2end")
    pictures = sorted((workplace.folder / "scenes").iterdir())
    with workplace.added("yolo-cls").client as client:
        found = scores(client, "yolo-cls", pictures, runtime, 3)
    assert np.abs(found - np.array([theirs[path.name] for path in pictures])).max() <= 0.02


def _assert_same(first: list[Json], second: list[Json], *, least_iou: float, score_within: float) -> None:
    """Each clear detection of one is in the other: the same class, place and score.

    One whose score is next to the threshold may be missing in the other.
    """
    for mine, others in ((first, second), (second, first)):
        for each in mine:
            if each["score"] < 0.25 + score_within:
                continue
            overlaps = [
                float(iou(_corners(each), _corners(other))[0, 0]) if other["class_id"] == each["class_id"] else 0.0
                for other in others
            ]
            best = int(np.argmax(overlaps)) if overlaps else -1
            assert best >= 0, (each, others)
            assert overlaps[best] >= least_iou, (each, others[best], overlaps[best])
            assert abs(others[best]["score"] - each["score"]) <= score_within, (each, others[best])


def _assert_same_masks(answers: list[Json], expected: list[Json]) -> None:
    for each in answers:
        mine = coco.decoded(each["mask"]["size"], each["mask"]["counts"])
        shares = []
        for other in expected:
            theirs = np.unpackbits(np.array(other["mask"], np.uint8), count=mine.size).reshape(mine.shape).astype(bool)
            shares.append((mine & theirs).sum() / max((mine | theirs).sum(), 1))
        if each["score"] >= 0.3:
            assert max(shares, default=0) >= 0.95, (each["label"], each["score"], shares)


def _corners(each: Json) -> npt.NDArray[np.float32]:
    return np.array([[each["box"][side] for side in ("x1", "y1", "x2", "y2")]], dtype=np.float32)


def _ultralytics(folder: Path, checkpoint: str, head: str) -> Json:
    """Its own predictions about the scenes, made once."""
    result = folder / f"{checkpoint}-{head}.json"
    if not result.exists():
        script = MAKE / "yolo.py"
        paths = [str(path) for path in (folder / checkpoint, folder / "scenes", result)]
        command = [str(python("ultralytics")), str(script), "--predict", *paths, head]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    found: Json = json.loads(result.read_text())
    return found


def _reference(environment: Any, script: str, *arguments: Path) -> Any:
    done = subprocess.run([python(environment), MAKE / script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
