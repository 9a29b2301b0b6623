"""An Ultralytics checkpoint: detect, segment, classify. Runs in the environment of ultralytics.

ultralytics is AGPL-3.0 and part of nothing else here. The head is exported without its own choice of candidates: that
is done by modelkit.whole_torch and whole_tf, alike for both runtimes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from modelkit.network import Entrance, Head, Network
from modelkit.sources import exchange
from modelkit.sources.common import Refusal, Request, offline, run
from modelkit.sources.torch_model import import_torchvision

_TOP_K = 300
_NMS_IOU = 0.7
_MIN_SCORE = 0.25
"""The three are Ultralytics' own defaults for predictions."""


class Raw(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """The network up to `[batch, 4 + classes + masks, n]` and prototypes, whatever the head would do next."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> Any:
        found = self.model(image)
        if isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[1], torch.Tensor):
            return found[0], found[1]
        return found[0] if isinstance(found, tuple | list) else found


def read(request: Request) -> None:
    model, known = _checkpoint(request)
    task = known["task"]
    if task not in ("detect", "segment", "classify"):
        raise Refusal(f"{request.source} is a model for {task}; Tandem serves detect, segment and classify.")
    if request.task not in (None, task):
        raise Refusal(f"{request.source} is a model for {task}, not {request.task}: leave --task out.")
    height = request.height or known["height"]
    width = request.width or known["width"]
    stride = known["stride"]
    if task != "classify" and (height % stride or width % stride):
        raise Refusal(f"The input's sides must be multiples of {stride}; --size {height}x{width} is not.")
    labels = known["labels"] if request.labels is None else request.labels_wanted(len(known["labels"]))
    facts: dict[str, Any] = {
        "task": task,
        "labels": labels,
        "licence": request.licence or "AGPL-3.0 (Ultralytics), unless you hold another licence",
        "source": f"{Path(request.source).name}, Ultralytics checkpoint",
    }
    if task == "classify":
        head = Head("scores")
        facts |= {"meaning": "softmax", "input": request.input(fit="crop", shorter_side=max(height, width))}
    else:
        head, facts["detection"] = _detector(model, request.nms)
        facts["input"] = request.input(fit="letterbox", antialias=False)
    _prepare(model)
    shapes = exchange.write(Raw(model), height, width, request.work)
    if task != "classify":
        rows = 4 + head.classes + head.masks
        if len(shapes[0]) != 3 or shapes[0][1] != rows:
            raise Refusal(
                f"The head of {request.source} returns {shapes[0]}, not [batch, {rows}, candidates]: this version"
                " of its"
                " architecture is not known. Export it to a pair, and give --torch and --tf."
            )
    Network(
        torch={"script": str(request.work / "network.pt")},
        tf={"onnx": str(request.work / "network.onnx")},
        height=height,
        width=width,
        entrance=request.entrance(Entrance()),
        head=head,
        facts=facts,
    ).write(request.work)


def _checkpoint(request: Request) -> tuple[Any, dict[str, Any]]:
    """The network and what the checkpoint says. No pickled code is run unless it is trusted. Raises Refusal."""
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "0" if request.trust else "1"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(request.work))  # its settings file stays out of the home folder
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    import_torchvision()
    from ultralytics import YOLO

    path = Path(request.source)
    if not path.exists() and len(path.parts) > 1:
        raise Refusal(f"There is no file {path}.")
    try:
        yolo = YOLO(request.source)
    except (ConnectionError, OSError) as error:
        raise offline(f"The checkpoint {path}", f"its path instead of {path}", error) from error
    except Exception as error:  # pickle's, torch's and ultralytics' own
        hint = "" if request.trust else " If it is your own, --trust lets the code that it brings along run."
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refusal(f"{path} cannot be loaded as an Ultralytics checkpoint: {reason}{hint}") from error
    finally:
        if not path.exists() and Path(path.name).exists():
            Path(path.name).rename(request.work / path.name)  # a download does not stay in the folder of the caller
    model = yolo.model.float().eval()
    size = (getattr(model, "args", None) or {}).get("imgsz", 640)
    height, width = (size, size) if isinstance(size, int) else size
    names = yolo.names
    return model, {
        "task": yolo.task,
        "labels": [names[number] for number in range(len(names))],
        "height": height,
        "width": width,
        "stride": int(max(model.stride)),
    }


def _detector(model: Any, nms: bool | None) -> tuple[Head, dict[str, Any]]:
    """The head's description; sets the model's head to the branch that is wanted."""
    head = model.model[-1]
    end_to_end = getattr(head, "one2one_cv2", None) is not None and not nms
    head.end2end = end_to_end
    described = Head(
        "dense",
        layout="rows",
        box="xyxy" if end_to_end or getattr(head, "xyxy", False) else "xywh",
        classes=head.nc,
        masks=getattr(head, "nm", 0),
        top_k=_TOP_K if end_to_end else 1000,
        pairs=end_to_end,
    )
    detection = {"nms_iou": None if end_to_end else _NMS_IOU, "min_score": _MIN_SCORE, "max_detections": _TOP_K}
    return described, detection


def _prepare(model: Any) -> None:
    """Export mode: one tensor and the prototypes; batch norms folded; the choice of candidates left out."""
    model.fuse(verbose=False)
    head = model.model[-1]
    head.export = True
    head.format = "onnx"
    head.dynamic = False
    if getattr(head, "end2end", False):
        head.postprocess = lambda rows: rows.permute(0, 2, 1)


if __name__ == "__main__":
    run(read)
