"""Writes the reference files: see the package's docstring."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from ultralytics.data.augment import LetterBox
from ultralytics.utils import ops

from tests.reference import MASK_CASES, MASKS, RESIZE_CASES, RESIZED, MaskCase, ResizeCase, noise


def resized(case: ResizeCase) -> NDArray[np.uint8]:
    image, spec, shape = noise(case.size), case.input, (case.input.height, case.input.width)
    if spec.fit == "letterbox":
        made: NDArray[np.uint8] = LetterBox(shape, padding_value=spec.pad)(image=np.asarray(image))
        return made
    return np.asarray(
        Compose([Resize(spec.shorter_side, InterpolationMode(spec.interpolation)), CenterCrop(shape)])(image)
    )


def masks(case: MaskCase) -> dict[str, object]:
    boxes, coefficients, prototypes = (torch.from_numpy(each) for each in case.inputs())
    shape = case.size[::-1]
    boxes = ops.scale_boxes(case.tensor[::-1], boxes, shape)
    made = ops.process_mask_native(prototypes, coefficients, boxes, shape).numpy()
    encoded = [coco.encode(np.asfortranarray(mask)) for mask in made]
    return {
        "boxes": boxes.tolist(),
        "masks": [{"size": each["size"], "counts": each["counts"].decode()} for each in encoded],
    }


if __name__ == "__main__":
    arrays: dict[str, Any] = {name: resized(case) for name, case in RESIZE_CASES.items()}
    np.savez_compressed(RESIZED, **arrays)
    MASKS.write_text(json.dumps({name: masks(case) for name, case in MASK_CASES.items()}, indent=1) + "\n")
