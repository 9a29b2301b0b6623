"""How good the detector is: `.venv/bin/python -m models.shapes.evaluate` measures it on the scenes that are held out.

Needs pycocotools, of the development group, and the worker environments.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gateway.images.geometry import Geometry
from gateway.images.preprocess import preprocess
from gateway.tasks.boxes import Boxes, suppress
from modelkit import children
from modelkit.labelled import LabelledPicture
from modelkit.spec import RUNTIME_NAMES, RuntimeName
from models.shapes.recipe import RECIPE

MIN_SCORE = 0.01
"""Detections to measure with have at least about this score: average precision counts how well they are ordered."""
COCO_IOUS = tuple(np.arange(0.5, 1, 0.05))

Answers = Mapping[str, npt.NDArray[np.float32]]


def ask(runtime: RuntimeName, pictures: Sequence[LabelledPicture]) -> Answers:
    """What the network says about the pictures in the environment of `runtime`, in that one's data format.

    `boxes` `[n, 500, 4]` and `class_scores` `[n, 500, 6]`. Raises StepFailed.
    """
    with tempfile.TemporaryDirectory(prefix="tandem-shapes-") as temporary:
        images, answers = Path(temporary) / "images.npy", Path(temporary) / "answers.npz"
        np.save(images, np.concatenate([preprocess(each.picture, RECIPE.input) for each in pictures]))
        arguments = (f"--weights={RECIPE.weights}", f"--images={images}", f"--answers={answers}")
        children.run(runtime, "models.shapes.answer", *arguments)
        with np.load(answers) as found:
            return dict(found)


def detections(answers: Answers, pictures: Sequence[LabelledPicture], min_score: float) -> list[Boxes]:
    """What is left of the answers about `pictures` when the best candidates are chosen and the double ones dropped."""
    found = []
    for boxes, scores, each in zip(answers["boxes"], answers["class_scores"], pictures, strict=True):
        best = np.argsort(-scores.max(axis=1), kind="stable")[: RECIPE.candidates]
        likely = best[scores.max(axis=1)[best] > min_score]
        candidates = Boxes(boxes[likely], scores.max(axis=1)[likely], scores.argmax(axis=1)[likely])
        kept = candidates[suppress(candidates, RECIPE.detection.nms_iou or 1.0, RECIPE.detection.max_detections)]
        geometry = Geometry.of(each.picture.size, RECIPE.input)
        found.append(Boxes(geometry.to_original(kept.xyxy), kept.scores, kept.classes))
    return found


def mean_average_precision(
    found: Sequence[Boxes], pictures: Sequence[LabelledPicture], *, least_iou: Sequence[float] = (0.5,)
) -> float:
    """From 0 to 1, the mean over the classes that occur and over `least_iou`: by default what is called mAP50.

    `found` and `pictures` are in the same order, both with boxes in pixels of the picture.
    """
    truth = [
        {
            "id": number,
            "image_id": image,
            "category_id": class_id,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            "iscrowd": 0,
        }
        for number, (image, bbox, class_id) in enumerate(
            ((image, *box) for image, each in enumerate(pictures) for box in _listed(each.boxes, each.classes)), start=1
        )
    ]
    detections = [
        {"image_id": image, "category_id": class_id, "bbox": bbox, "score": score}
        for image, each in enumerate(found)
        for (bbox, class_id), score in zip(_listed(each.xyxy, each.classes), each.scores.tolist(), strict=True)
    ]
    if not detections:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
        known = COCO()
        known.dataset = {
            "images": [{"id": image} for image in range(len(pictures))],
            "annotations": truth,
            "categories": [{"id": class_id} for class_id in {each["category_id"] for each in truth}],
        }
        known.createIndex()
        known.dataset["info"] = {}
        evaluation = COCOeval(known, known.loadRes(detections), "bbox")
        evaluation.params.iouThrs = np.array(least_iou)
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU thresholds, recall thresholds, classes, areas (all first), most detections (100 last)]; -1 where unknown.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def _listed(boxes: Any, classes: Any) -> list[tuple[list[float], int]]:
    """COCO's boxes, x, y, width, height, each with its class."""
    corners, sizes = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    return list(zip(np.concatenate([corners, sizes], axis=1).tolist(), classes.tolist(), strict=True))


def main() -> None:
    pictures = RECIPE.held_out()
    shapes = sum(len(each.boxes) for each in pictures)
    sys.stdout.write(f"{len(pictures)} scenes with {shapes} shapes\n")
    for runtime in RUNTIME_NAMES:
        answers = ask(runtime, pictures)
        found = detections(answers, pictures, MIN_SCORE)
        sure = detections(answers, pictures, RECIPE.detection.min_score)
        right = [picture.is_answered_by(boxes) for picture, boxes in zip(pictures, sure, strict=True)]
        sys.stdout.write(
            f"{runtime}: mAP50 {mean_average_precision(found, pictures):.4f}, "
            f"mAP50-95 {mean_average_precision(found, pictures, least_iou=COCO_IOUS):.4f}, "
            f"wholly right {np.mean(right):.2%}\n"
        )


if __name__ == "__main__":
    main()
