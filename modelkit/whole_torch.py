"""Entrance, network and head as one PyTorch module. Runs in the torch worker's environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from modelkit.network import Entrance, Head

Outputs = dict[str, torch.Tensor]
Raw = Any
"""A tensor, several in order, or several by name."""


class Whole(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """`image: uint8 [batch, height, width, 3]` → the outputs of model.yaml.

    The network reads channels-first or, if `channels_last`, channels-last floats. `copied`: a channels-first tensor is
    laid out as such; else it stays a view of the channels-last picture, which PyTorch calls `torch.channels_last`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        entrance: Entrance | None,
        head: Head | None,
        *,
        channels_last: bool,
        copied: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.entrance = entrance
        self.head = head
        self.channels_last = channels_last
        self.copied = copied
        if entrance is not None:
            # One multiplication and one addition: (x / 255 - mean) / std.
            mean, std = (torch.tensor(each, dtype=torch.float64) for each in (entrance.mean, entrance.std))
            self.register_buffer("factor", (1 / (255 * std)).float())
            self.register_buffer("offset", (-mean / std).float())

    def forward(self, image: torch.Tensor) -> Outputs:
        if self.entrance is None:
            raw = self.network(image)
        else:
            x = image.flip(-1) if self.entrance.bgr else image
            x = x.to(torch.float32) * self.factor + self.offset
            if not self.channels_last:
                x = x.permute(0, 3, 1, 2)
                if self.copied:
                    x = x.contiguous()
            raw = self.network(x)
        return dict(raw) if self.head is None else outputs_of(raw, self.head)


def outputs_of(raw: Raw, head: Head) -> Outputs:
    """The outputs of model.yaml, of what the network returned."""
    if head.kind == "scores":
        scores = _only(raw)
        if head.activation == "softmax":
            scores = scores.softmax(dim=-1)
        elif head.activation == "sigmoid":
            scores = scores.sigmoid()
        return {"scores": scores}
    boxes, scores, coefficients, prototypes = _dense(raw, head)
    count = min(head.top_k, boxes.shape[1])
    best, anchor = scores.amax(dim=2).topk(count, dim=1)
    if head.pairs:
        classes = scores.shape[2]
        per_anchor = scores.gather(1, anchor.unsqueeze(-1).expand(-1, -1, classes))
        best, index = per_anchor.flatten(1).topk(count, dim=1)
        anchor = anchor.gather(1, torch.div(index, classes, rounding_mode="floor"))
        kind = index.remainder(classes)
        candidate = anchor * classes + kind
    else:
        kind = scores.gather(1, anchor.unsqueeze(-1).expand(-1, -1, scores.shape[2])).argmax(dim=2)
        candidate = anchor
    outputs = {
        "boxes": boxes.gather(1, anchor.unsqueeze(-1).expand(-1, -1, 4)),
        "scores": best,
        "classes": kind.to(torch.float32),
        "candidates": candidate.to(torch.float32),
    }
    if coefficients is not None and prototypes is not None:
        outputs["coefficients"] = coefficients.gather(1, anchor.unsqueeze(-1).expand(-1, -1, head.masks))
        outputs["prototypes"] = prototypes
    return outputs


def _dense(raw: Raw, head: Head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Boxes as corners, class scores, mask coefficients and prototypes."""
    coefficients = prototypes = None
    if isinstance(raw, Mapping):
        boxes, scores = raw["boxes"], raw["class_scores"]
    else:
        rows, *rest = [raw] if isinstance(raw, torch.Tensor) else list(raw)
        rows = rows.permute(0, 2, 1)
        boxes, scores = rows[..., :4], rows[..., 4 : 4 + head.classes]
        if head.masks:
            coefficients, prototypes = rows[..., 4 + head.classes :], rest[0]
    if head.box == "xywh":
        centre, size = boxes[..., :2], boxes[..., 2:]
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
    return boxes, scores, coefficients, prototypes


def _only(raw: Raw) -> torch.Tensor:
    if isinstance(raw, torch.Tensor):
        return raw
    (only,) = raw.values() if isinstance(raw, Mapping) else raw
    return only
