"""Ultralytics checkpoints that find something: trained for a few minutes on shapes drawn here. In `.venv-ultralytics`.

    python yolo.py ARCHITECTURE CHECKPOINT     e.g. yolo26n-seg trained.pt; of a detector also trained.onnx

And what ultralytics itself says of pictures, for the tests to be held against:

    python yolo.py --predict CHECKPOINT PICTURES RESULT.json end2end|nms
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("disc", "box", "wedge")
SIDE = 160
TRAINING, EPOCHS = 200, 40


def scene(seed: int) -> tuple[Image.Image, list[tuple[int, list[tuple[float, float]]]]]:
    """A picture of one to four shapes on a noisy ground, and their classes and outlines."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(60, 200, 3) + rng.normal(0, 12, (SIDE, SIDE, 3))
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw, shapes = ImageDraw.Draw(picture), []
    for column, row in rng.permutation([(x, y) for x in (0, 1) for y in (0, 1)])[: rng.integers(1, 5)]:
        kind, radius = int(rng.integers(3)), float(rng.uniform(16, 33))
        x, y = (float(40 + 80 * place + rng.uniform(-6, 6)) for place in (column, row))
        corners = {0: 40, 1: 4, 2: 3}[kind]
        turn = rng.uniform(0, 2 * np.pi)
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        outline = [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]
        draw.polygon(outline, fill=tuple(int(each) for each in rng.uniform(0, 255, 3)))
        shapes.append((kind, outline))
    return picture, shapes


def write_dataset(folder: Path, task: str) -> Path:
    """YOLO's layout of TRAINING scenes, with outlines as labels; for classify a folder for each class."""
    if task == "classify":
        for number in range(TRAINING):
            rng = np.random.default_rng(number)
            picture, shapes = scene(number)
            kind, outline = shapes[0]
            xs, ys = zip(*outline, strict=True)
            crop = picture.crop((min(xs) - rng.uniform(4, 20), min(ys) - 8, max(xs) + 8, max(ys) + rng.uniform(4, 20)))
            for split in ("train", "val"):
                (folder / split / NAMES[kind]).mkdir(parents=True, exist_ok=True)
                crop.resize((64, 64)).save(folder / split / NAMES[kind] / f"{number}.png")
        return folder
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(TRAINING):
        picture, shapes = scene(number)
        picture.save(folder / "images" / f"{number}.png")
        lines = [" ".join([str(kind), *(f"{v / SIDE:.5f}" for xy in outline for v in xy)]) for kind, outline in shapes]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines))
    names = dict(enumerate(NAMES))
    data = folder / "data.yaml"
    data.write_text(json.dumps({"path": str(folder), "train": "images", "val": "images", "names": names}))
    return data


def train(architecture: str, checkpoint: Path) -> None:
    yolo = _ultralytics()
    task = "segment" if "-seg" in architecture else "classify" if "-cls" in architecture else "detect"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        model = yolo(f"{architecture}.yaml", task=task)
        side, epochs = (64, 12) if task == "classify" else (SIDE, EPOCHS)
        model.train(
            data=str(write_dataset(folder, task)), epochs=epochs, imgsz=side, batch=16, lr0=0.003, optimizer="AdamW",
            warmup_epochs=1, mosaic=0.0, erasing=0.0, val=False, plots=False, workers=0, device="cpu", seed=1,
            amp=False, project=temporary, name="run", verbose=False, exist_ok=True,
        )  # fmt: skip
        checkpoint.write_bytes((Path(temporary) / "run" / "weights" / "last.pt").read_bytes())
    if task == "detect":
        yolo(str(checkpoint)).export(format="onnx", imgsz=SIDE, opset=17, simplify=False)


def predict(checkpoint: str, pictures: str, result: str, head: str) -> None:
    """Ultralytics' own predictions, with one of the heads, masks at the pictures' size."""
    model = _ultralytics()(checkpoint)
    found: dict[str, Any] = {}
    for path in sorted(Path(pictures).iterdir()):
        more = {"nms": False} if head == "end2end" else {}
        (answer,) = model.predict(str(path), rect=False, retina_masks=True, device="cpu", verbose=False, **more)
        if answer.probs is not None:
            found[path.name] = answer.probs.data.tolist()
            continue
        masks = None if answer.masks is None else answer.masks.data.numpy().astype(bool)
        found[path.name] = [
            {
                "class_id": int(box.cls),
                "score": float(box.conf),
                "box": box.xyxy[0].tolist(),
                "mask": None if masks is None else np.packbits(masks[number]).tolist(),
            }
            for number, box in enumerate(answer.boxes)
        ]
    Path(result).write_text(json.dumps(found))


def _ultralytics() -> Any:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    from modelkit.sources.torch_model import import_torchvision

    torchvision = import_torchvision()
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    try:
        torchvision.extension._assert_has_ops()
    except RuntimeError:  # a torchvision without its compiled operators: ultralytics has its own
        torchvision.ops.nms = TorchNMS.nms
    return YOLO


if __name__ == "__main__":
    if sys.argv[1] == "--predict":
        predict(*sys.argv[2:])
    else:
        train(sys.argv[1], Path(sys.argv[2]))
