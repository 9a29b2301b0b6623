"""Masks: as Ultralytics makes them, as COCO writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco

from gateway.images.geometry import Geometry
from gateway.tasks.mask import Mask
from gateway.tasks.prototypes import masks
from modelkit.spec import InputSpec
from tests.reference import MASK_CASES, MASKS
from tests.support.coco import decoded

REFERENCE = json.loads(MASKS.read_text())


def pixels(mask: Mask) -> NDArray[np.bool_]:
    return decoded((mask.height, mask.width), mask.counts())


def blobs(shape: tuple[int, int], seed: int) -> NDArray[np.bool_]:
    """Runs of any length, also over the ends of columns."""
    random = np.random.default_rng(seed)
    flips = random.random(shape[0] * shape[1]) < random.choice([0.01, 0.2, 0.9])
    return (np.cumsum(flips) % 2).astype(bool).reshape(shape[::-1]).T


@pytest.mark.parametrize("name", MASK_CASES)
def test_masks_are_those_of_the_reference(name: str) -> None:
    """A pixel may differ where a sum of 32-bit numbers is zero but for its rounding."""
    case, reference = MASK_CASES[name], REFERENCE[name]
    boxes, coefficients, prototypes = case.inputs()
    width, height = case.tensor
    geometry = Geometry.of(case.size, InputSpec(width=width, height=height, fit="letterbox"))
    originals = geometry.to_original(boxes)
    assert originals.tolist() == reference["boxes"]
    found = list(masks(coefficients, prototypes, originals, geometry))
    assert len(found) == len(reference["masks"])
    for mask, expected in zip(found, reference["masks"], strict=True):
        right = decoded(**expected)
        assert pixels(mask).shape == right.shape
        assert (pixels(mask) != right).sum() <= right.size / 1000


def test_a_stretched_and_a_cut_pictures_masks_lie_where_the_tensor_has_them() -> None:
    """Left half of the tensor: of the whole picture, or of its middle."""
    prototypes = np.ones((1, 8, 8), np.float32)
    prototypes[:, :, 4:] = -1
    whole = np.array([[0, 0, 100, 40]], np.float32)
    for fit, last in [("stretch", 50), ("crop", 50)]:
        spec = InputSpec.model_validate({"height": 32, "width": 32, "fit": fit, "shorter_side": 32})
        (mask,) = masks(np.ones((1, 1), np.float32), prototypes, whole, Geometry.of((100, 40), spec))
        assert np.flatnonzero(pixels(mask).all(axis=0)).tolist() == list(range(last))
        assert mask.area == last * 40


def test_a_mask_larger_than_a_block_has_no_seams() -> None:
    """A plane: its sign changes once along each row."""
    prototypes = np.broadcast_to(np.linspace(1, -1, 16, dtype=np.float32), (1, 16, 16))
    geometry = Geometry.of((700, 600), InputSpec(height=64, width=64))
    (mask,) = masks(np.ones((1, 1), np.float32), prototypes, np.array([[0, 0, 700, 600]], np.float32), geometry)
    assert (np.diff(pixels(mask).astype(int), axis=1) != 0).sum(axis=1).tolist() == [1] * 600


@pytest.mark.parametrize("size", [(1_000_000, 1), (1, 1_000_000)], ids=["a row", "a column"])
def test_the_mask_of_a_long_strip_is_one_run(size: tuple[int, int]) -> None:
    geometry = Geometry.of(size, InputSpec(height=64, width=64, fit="letterbox"))
    (mask,) = masks(
        np.ones((1, 1), np.float32), np.ones((1, 16, 16), np.float32), np.array([[0, 0, *size]], np.float32), geometry
    )
    assert mask.edges.tolist() == [0, 1_000_000]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (23, 57)])
def test_the_encoding_is_cocos_own(shape: tuple[int, int], seed: int) -> None:
    mask = blobs(shape, seed)
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert Mask.of(mask, 0, 0, shape[::-1]).counts() == encoded["counts"].decode()


@pytest.mark.parametrize("value", [True, False])
def test_all_and_nothing_are_encoded_too(value: bool) -> None:
    patch = np.full((3, 5), value)
    encoded = coco.encode(np.asfortranarray(patch.astype(np.uint8)))
    assert Mask.of(patch, 0, 0, (5, 3)).counts() == encoded["counts"].decode()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (23, 57), (2000, 3)])
def test_what_coco_encodes_reads_back(shape: tuple[int, int], seed: int) -> None:
    mask = blobs(shape, seed)
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    read = Mask.read(shape, encoded["counts"].decode())
    assert (read.height, read.width, read.area) == (*shape, mask.sum())
    assert np.array_equal(pixels(read), mask)
    x, columns = read.columns()
    assert np.array_equal(columns, mask[:, x : x + columns.shape[1]])


@pytest.mark.parametrize("value", [True, False])
def test_all_and_nothing_read_back_too(value: bool) -> None:
    mask = Mask.of(np.full((3, 5), value), 0, 0, (5, 3))
    assert Mask.read((3, 5), mask.counts()).edges.tolist() == mask.edges.tolist()


def test_a_patch_lies_where_it_is_put() -> None:
    patch = blobs((6, 4), seed=1)
    expected = np.zeros((20, 30), dtype=bool)
    expected[5:11, 7:11] = patch
    assert np.array_equal(pixels(Mask.of(patch, 7, 5, (30, 20))), expected)


@pytest.mark.parametrize("seed", range(8))
def test_the_columns_are_the_pixels(seed: int) -> None:
    patch = blobs((9, 7), seed)
    mask = Mask.of(patch, 3, 0, (12, 9))
    x, columns = mask.columns()
    whole = np.zeros((9, 12), dtype=bool)
    whole[:, x : x + columns.shape[1]] = columns
    assert np.array_equal(whole, pixels(mask))


@pytest.mark.parametrize("seed", range(8))
def test_area_and_overlap_are_those_of_the_pixels(seed: int) -> None:
    one, other = blobs((20, 30), seed), blobs((20, 30), seed + 100)
    a, b = Mask.of(one, 0, 0, (30, 20)), Mask.of(other, 0, 0, (30, 20))
    assert a.area == one.sum()
    assert a.iou(b) == pytest.approx((one & other).sum() / (one | other).sum())
    assert a.iou(a) == 1


def test_masks_without_pixels_do_not_overlap() -> None:
    nothing = Mask.of(np.zeros((3, 3), dtype=bool), 0, 0, (3, 3))
    assert nothing.iou(nothing) == 0
