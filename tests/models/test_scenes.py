"""The scenes that the shapes detector is trained and measured with."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from modelkit.children import ROOT
from models.shapes.outline import LABELS, Outline, random_outline
from models.shapes.recipe import held_out
from models.shapes.scenes import HELD_OUT, MAX_SHAPES, TRAINING, Canvas, draw
from models.shapes.train import SAMPLE_SEEDS

SOME = HELD_OUT[:40]
DIGEST = "from tests.models.test_scenes import digest; print(digest())"


def digest() -> str:
    total = hashlib.sha256()
    for scene in map(draw, SOME):
        total.update(scene.picture.tobytes() + scene.boxes.tobytes() + scene.classes.tobytes())
    return total.hexdigest()


def rectangle(width: int, height: int) -> Outline:
    return Outline(np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=float), None)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def canvas() -> Canvas:
    """Black, 100 pixels wide and 80 high."""
    return Canvas(np.zeros((80, 100, 3), dtype=np.float32))


def test_a_scene_is_the_same_in_every_process() -> None:
    other = subprocess.run([sys.executable, "-c", DIGEST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest()


def test_no_scene_is_both_trained_with_and_measured_with_or_shown() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    assert not set(TRAINING) & set(SAMPLE_SEEDS)


@pytest.mark.parametrize("class_id", range(len(LABELS)), ids=LABELS)
def test_a_box_is_tight_about_the_pixels_that_the_shape_changes(class_id: int, rng: np.random.Generator) -> None:
    for size in (16.0, 33.3, 60.0):
        canvas = Canvas(np.zeros((80, 100, 3), dtype=np.float32))
        assert canvas.place(random_outline(class_id, size, rng), 12, 7, rng)
        y, x = np.nonzero(canvas.pixels.max(axis=2))
        changed = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        # A pixel at the rim that is covered by less than half is tinted, and not in the box.
        inwards = (canvas.boxes()[0] - changed) * [1, 1, -1, -1]
        assert ((inwards >= 0) & (inwards <= 2)).all(), (size, canvas.boxes()[0], changed)
        assert np.ptp(changed.reshape(2, 2), axis=0).max() == pytest.approx(size, abs=1.5)


def test_a_box_is_about_what_later_shapes_leave_visible(canvas: Canvas, rng: np.random.Generator) -> None:
    assert canvas.place(rectangle(40, 40), 10, 20, rng)
    assert canvas.place(rectangle(12, 60), 5, 10, rng)
    assert canvas.boxes().tolist() == [[17, 20, 50, 60], [5, 10, 17, 70]]


def test_a_box_ends_at_the_edge_of_the_scene(canvas: Canvas, rng: np.random.Generator) -> None:
    assert canvas.place(rectangle(40, 40), -3, 45, rng)
    assert canvas.boxes().tolist() == [[0, 45, 37, 80]]


@pytest.mark.parametrize(
    ("left", "top"), [(-17, 10), (78, 10), (12, 22)], ids=["left edge", "right edge", "on another"]
)
def test_a_shape_that_would_hide_too_much_is_not_painted(
    canvas: Canvas, rng: np.random.Generator, left: int, top: int
) -> None:
    assert canvas.place(rectangle(40, 40), 10, 20, rng)
    before = canvas.pixels.copy()
    assert not canvas.place(rectangle(40, 40), left, top, rng)
    np.testing.assert_array_equal(canvas.pixels, before)


def test_held_out_scenes_hold_any_number_of_shapes_of_every_class_inside_the_picture() -> None:
    scenes = held_out()
    assert {len(scene.boxes) for scene in scenes} == set(range(MAX_SHAPES + 1))
    assert np.unique(np.concatenate([scene.classes for scene in scenes])).tolist() == list(range(len(LABELS)))
    for scene in scenes:
        assert len(scene.boxes) == len(scene.classes)
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= scene.picture.size).all()
        assert (scene.boxes[:, 2:] - scene.boxes[:, :2] >= 5).all()
