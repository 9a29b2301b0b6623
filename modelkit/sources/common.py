"""What the readers of sources share. Runs in every environment: standard library only."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from modelkit.network import Entrance

REFUSED = 65
"""The exit status of a step that refuses its source; the reason is then in the file REFUSAL of its work folder."""
REFUSAL = "refused.txt"


class Refusal(Exception):
    """Why a source cannot become a model. The message says which option to give, or what to do."""


@dataclass(frozen=True)
class Request:
    """The user's request, as modelkit.request.AddRequest has checked it."""

    values: dict[str, Any]
    work: Path

    def __getattr__(self, name: str) -> Any:
        return self.values[name]

    def labels_given(self, classes: int) -> list[str] | None:
        """The labels that the request names, for so many classes; None if it names none."""
        if self.labels is None:
            return None
        labels = [str(number) for number in range(classes)] if self.labels == "numbers" else read_labels(self.labels)
        if len(labels) != classes:
            raise Refusal(f"{self.labels} has {len(labels)} labels, and the model has {classes} classes.")
        return labels

    def labels_wanted(self, classes: int) -> list[str]:
        """The same, where the source does not know them. Raises Refusal."""
        labels = self.labels_given(classes)
        if labels is None:
            raise Refusal(
                f"The source does not say what its {classes} classes are: give --labels FILE, one name a line, or"
                " --labels numbers."
            )
        return labels

    def size_wanted(self) -> tuple[int, int]:
        """Height and width, where the source does not know them. Raises Refusal."""
        if self.height is None or self.width is None:
            raise Refusal(
                "The source does not say how large its input is: give --size HEIGHTxWIDTH, e.g. --size 224x224."
            )
        return self.height, self.width

    def entrance(self, known: Entrance | None) -> Entrance:
        """The normalisation: as asked for, else as the source has it. Raises Refusal where neither says."""
        if self.mean is None and self.std is None and self.pixels is None:
            if known is None:
                raise Refusal(
                    "The source does not say how its pixels were normalised: give --mean and --std (of pixels from 0 to"
                    " 1, e.g. --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225), or --pixels 0..1 or"
                    " --pixels 0..255 for a network that takes them as they are."
                )
            return replace(known, bgr=known.bgr or self.bgr)
        scale = 255.0 if self.pixels == "0..255" else 1.0
        mean, std = self.mean or (0.0, 0.0, 0.0), self.std or (1.0, 1.0, 1.0)
        if min(std) <= 0:
            raise Refusal(f"--std must be greater than 0; it is {','.join(map(str, std))}.")
        return Entrance(tuple(each / scale for each in mean), tuple(each / scale for each in std), self.bgr)  # type: ignore[arg-type]

    def input(self, **known: Any) -> dict[str, Any]:
        """`input` of model.yaml: what is asked for, over what the source knows."""
        found = {"fit": "stretch", "interpolation": "bilinear", "antialias": True} | known
        for name in ("fit", "shorter_side", "interpolation", "antialias"):
            if self.values[name] is not None:
                found[name] = self.values[name]
        if found["fit"] != "crop":
            found.pop("shorter_side", None)
        elif found.get("shorter_side") is None:
            raise Refusal("--fit crop needs --shorter-side: what the shorter side is scaled to before the crop.")
        return found


def read_labels(file: str) -> list[str]:
    """Names of classes: one a line, or a JSON list. Raises Refusal."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Refusal(f"--labels {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Refusal(f"--labels {file} is not UTF-8 text.") from None
    if text.lstrip().startswith("["):
        try:
            return [str(each) for each in json.loads(text)]
        except json.JSONDecodeError as error:
            raise Refusal(f"--labels {file} is not a JSON list: {error}.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def offline(what: str, option: str, error: BaseException) -> Refusal:
    """The refusal for a download that failed."""
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Refusal(f"{what} could not be downloaded ({cause}). Without a network, give a file with {option}.")


def run(read: Callable[[Request], None]) -> None:
    """What every reader does: the request in, `network.json` out; a refusal ends it with REFUSED."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    try:
        read(Request(json.loads(given.request.read_text()), given.work))
    except Refusal as refusal:
        refuse(str(refusal), given.work)


def refuse(reason: str, work: Path) -> NoReturn:
    """End this process, and leave the reason for the one that started it."""
    (work / REFUSAL).write_text(reason)
    sys.exit(REFUSED)
