"""`predict` and `compare` of detectors through HTTP, and drawn pictures, over the fakes."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from gateway.errors import RuntimeFailed
from gateway.images.draw import colour_of
from tests.conftest import Fakes
from tests.support.coco import decoded
from tests.support.pictures import encode, plain

SHAPES, OUTLINES = "/v1/models/shapes", "/v1/models/outlines"
WIDE = encode(plain(100, (128, 64)))
"""Half as large in the input tensor, 16 rows from its top: the square's box, 8 16 24 32 there, is 16 0 48 32 in it."""
PNG = {"content-type": "image/png"}
SQUARE = {"class_id": 1, "label": "square", "score": 0.9, "box": {"x1": 16.0, "y1": 0.0, "x2": 48.0, "y2": 32.0}}
CIRCLE = {"class_id": 0, "label": "circle", "score": 0.6, "box": {"x1": 80.0, "y1": 32.0, "x2": 112.0, "y2": 64.0}}


def ask(
    client: httpx.Client, path: str, accept: str = "application/json", params: dict[str, float] | None = None
) -> httpx.Response:
    answer = client.post(path, content=WIDE, headers=PNG | {"accept": accept}, params=params)
    assert answer.status_code == 200, answer.text
    return answer


def picture(answer: httpx.Response) -> Image.Image:
    return Image.open(io.BytesIO(answer.content)).convert("RGB")


def test_detections_carry_boxes_in_pixels_of_the_original(client: httpx.Client) -> None:
    (result,) = ask(client, f"{SHAPES}/predict").json()["results"]
    assert result == {"image": {"width": 128, "height": 64}, "predictions": [SQUARE, CIRCLE]}


def test_a_picture_turned_by_exif_has_its_boxes_upright(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: stored as 64 × 128, upright it is 128 × 64
    turned = encode(plain(100, (64, 128)), "JPEG", exif=exif)
    answer = client.post(f"{SHAPES}/predict", content=turned, headers={"content-type": "image/jpeg"}).json()
    assert answer["results"] == [{"image": {"width": 128, "height": 64}, "predictions": [SQUARE, CIRCLE]}]


def test_segmentations_carry_masks_too(client: httpx.Client) -> None:
    (result,) = ask(client, f"{OUTLINES}/predict").json()["results"]
    masks = [each.pop("mask") for each in result["predictions"]]
    assert result["predictions"] == [SQUARE, CIRCLE]
    for mask, (left, top) in zip(masks, [(16, 0), (80, 32)], strict=True):
        expected = np.zeros((64, 128), dtype=bool)
        expected[top : top + 32, left : left + 32] = True
        assert np.array_equal(decoded(**mask), expected)
        assert mask["size"] == [64, 128]


def test_limits_of_a_detector_can_be_asked_for(client: httpx.Client) -> None:
    def labels(**params: float) -> list[str]:
        (result,) = ask(client, f"{SHAPES}/predict", params=params).json()["results"]
        return [each["label"] for each in result["predictions"]]

    assert labels() == ["square", "circle"]  # the third candidate's score is 0.2, the package says 0.25
    assert labels(min_score=0.1) == ["square", "circle"]  # it lies in the corner and has no area
    assert labels(min_score=0.7) == ["square"]
    assert labels(top_k=1) == ["square"]
    assert labels(min_score=1) == []


@pytest.mark.parametrize("path", [SHAPES, OUTLINES])
def test_both_runtimes_detections_are_matched(client: httpx.Client, path: str) -> None:
    agreement = ask(client, f"{path}/compare").json()["agreement"]
    masks = {"mask_f1": 1.0, "min_mask_f1": 1.0, "mean_mask_iou": 1.0, "min_mask_iou": 1.0} if path == OUTLINES else {}
    boxes = {"matched": 2, "unmatched": 0, "f1": 1.0, "min_f1": 1.0, "mean_iou": 1.0, "min_iou": 1.0}
    assert agreement == {"agree": True, "images": 1} | boxes | {"max_score_difference": 0.0} | masks
    lines = client.get("/metrics").text.splitlines()
    assert f'tandem_agreement_total{{model="{path.split("/")[-1]}",outcome="agree"}} 1.0' in lines


def test_compare_says_how_far_apart_the_boxes_are(client: httpx.Client, fakes: Fakes) -> None:
    fakes["tf"].offset = 4
    agreement = ask(client, f"{SHAPES}/compare").json()["agreement"]
    assert (agreement["agree"], agreement["matched"]) == (True, 2)
    assert agreement["min_iou"] == pytest.approx(16 / 20)
    fakes["tf"].offset = 40
    agreement = ask(client, f"{SHAPES}/compare").json()["agreement"]
    assert (agreement["agree"], agreement["matched"], agreement["unmatched"]) == (False, 1, 2)
    assert agreement["min_iou"] == pytest.approx(32 / 48, abs=0.001)  # the circle's, which is clipped to the picture


def test_a_detector_that_answers_nonsense_has_failed(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].tensors = {"boxes": np.full((1, 4, 4), np.nan, np.float32)}
    answer = client.post(f"{SHAPES}/predict", content=WIDE, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (502, "runtime_failed")


@pytest.mark.parametrize(("accept", "form"), [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/*", "PNG")])
@pytest.mark.parametrize("path", [SHAPES, OUTLINES])
def test_the_picture_is_drawn_on_request(client: httpx.Client, path: str, accept: str, form: str) -> None:
    answer = ask(client, f"{path}/predict", accept)
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.size) == (form, (128, 64))
    assert answer.headers["content-type"] == Image.MIME[form]
    assert "serialize;dur=" in answer.headers["server-timing"]
    assert len(answer.headers["x-request-id"]) == 32
    red, green, blue = colour_of(1)
    assert picture(answer).getpixel((30, 31)) == pytest.approx((red, green, blue), abs=40)


def test_a_classified_picture_is_drawn_with_its_classes_below(client: httpx.Client) -> None:
    image = picture(ask(client, "/v1/models/digits/predict", "image/png"))
    assert image.width == 128
    assert image.height > 64


def test_a_drawn_comparison_has_both_side_by_side(client: httpx.Client, fakes: Fakes) -> None:
    both = picture(ask(client, f"{SHAPES}/compare", "image/png"))
    assert both.width > 2 * 128
    assert both.height > 64
    fakes["tf"].error = RuntimeFailed("It broke.")
    half = np.asarray(picture(ask(client, f"{SHAPES}/compare", "image/png")))
    torch, tf = half[:, : both.width // 2], half[:, both.width // 2 :]
    assert [(side == colour_of(1)).all(axis=2).any() for side in (torch, tf)] == [True, False]


def test_a_drawing_counts_as_serialising(client: httpx.Client) -> None:
    ask(client, f"{SHAPES}/predict", "image/png")
    labels = 'model="shapes",role="primary",runtime="torch",stage="{}",version="1"'
    lines = client.get("/metrics").text.splitlines()
    for stage in ("postprocess", "serialize"):
        assert f"tandem_stage_seconds_count{{{labels.format(stage)}}} 1.0" in lines


def test_the_api_describes_each_tasks_answers(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    content = description["paths"]["/v1/models/{model}/predict"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "image/png", "image/jpeg"}
    predictions = json.dumps(description["components"]["schemas"]["Result"]["properties"]["predictions"])
    for kind in ("Classification", "Detection", "Segmentation"):
        assert f"schemas/{kind}" in predictions
