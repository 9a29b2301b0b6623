"""A user's folder with a model of every kind, and a running stack to which the commands of docs/models.md add them.

Everything is made here, with the real libraries: networks trained for seconds or minutes on what scikit-learn bundles
or on shapes drawn here. It takes the conversion environments, and minutes: `make test-sources`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from modelkit import samples
from modelkit.add import ensure
from modelkit.children import EnvironmentName, python
from modelkit.spec import InputSpec
from tests.sources.make import yolo
from tests.support.stack import ROOT, Stack, running_stack

MAKE = Path(__file__).with_name("make")
TANDEM = str(Path(sys.executable).with_name("tandem"))
PICTURES = 200
"""For the ResNet."""
SCENES = range(5000, 5012)
"""Numbers of the scenes on which the YOLO networks are held against ultralytics; they were not trained on these."""


def commands() -> list[str]:
    """Every command of docs/models.md, in order."""
    page = (ROOT / "docs" / "models.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def make(environment: EnvironmentName, script: str, *arguments: object) -> None:
    """Run a script of `make/` in an environment."""
    ensure(environment, lambda _: None)
    done = subprocess.run(
        [python(environment), MAKE / script, *map(str, arguments)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}: {done.stdout[-3000:]}{done.stderr[-3000:]}"


@dataclass
class Workplace:
    """A user's folder, and the stack they have running."""

    folder: Path
    stack: Stack
    done: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run `tandem …` as the user would, once: a second time gives what the first one gave."""
        if command not in self.done:
            words = shlex.split(command)
            assert words[0] == "tandem"
            self.done[command] = subprocess.run(
                [TANDEM, *words[1:]],
                cwd=self.folder,
                env=self.stack.environment,
                capture_output=True,
                text=True,
                check=False,
            )
        return self.done[command]

    def added(self, name: str) -> Workplace:
        """After the page's command that adds the model `name`."""
        (command,) = [each for each in commands() if f"--name {name} " in f"{each} "]
        done = self.run(command)
        assert done.returncode == 0, done.stderr
        return self

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.stack.url, timeout=60)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    _write_digits(folder)
    _write_photos(folder)
    make("tf", "keras_digits.py", folder / "scans.npz", folder / "model.keras")
    make("convert", "torch_digits.py", folder / "scans.npz", folder)
    make("tf", "tf_pair.py", folder / "digits.npz", folder / "pair-saved-model")
    make("convert", "resnet.py", folder / "photos.npy", folder / "resnet50.pt")
    for architecture in ("yolo26n", "yolo26n-seg", "yolo26n-cls"):
        make("ultralytics", "yolo.py", architecture, folder / f"{architecture}-shapes.pt")
    (folder / "scenes").mkdir()
    for number in SCENES:
        yolo.scene(number)[0].resize((320, 240)).save(folder / "scenes" / f"{number}.png")
    return folder


def _write_digits(folder: Path) -> None:
    """Scans to train with, and others as pictures."""
    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    pictures = [Image.fromarray(each).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR) for each in grey]
    np.savez(
        folder / "scans.npz",
        pictures=np.stack([np.asarray(each) for each in pictures[:1500]]),
        labels=data.target[:1500],
    )
    (folder / "scans").mkdir()
    for number in range(1500, 1600):
        pictures[number].save(folder / "scans" / f"{number}-{data.target[number]}.png")
    (folder / "labels.txt").write_text("\n".join(f"digit {number}" for number in range(10)))


def _write_photos(folder: Path) -> None:
    """PICTURES parts of the bundled photographs."""
    rng = np.random.default_rng(7)
    wholes = [Image.open(path).convert("RGB") for path in sorted(samples.PHOTOGRAPHS.glob("*.jpg"))]
    (folder / "photos").mkdir()
    pictures = []
    for number in range(PICTURES):
        whole = wholes[number % len(wholes)]
        side = int(min(whole.size) * rng.uniform(0.25, 0.9))
        left, top = int(rng.uniform(0, whole.width - side)), int(rng.uniform(0, whole.height - side))
        picture = whole.crop((left, top, left + side, top + side))
        picture.save(folder / "photos" / f"{number:03}.png")
        pictures.append(picture)
    wholes[0].save(folder / "photo.jpg", quality=92)
    fitted = InputSpec(height=224, width=224, fit="crop", shorter_side=232)
    np.save(folder / "photos.npy", samples.tensors(pictures, fitted))
    (folder / "classes.txt").write_text("\n".join(f"kind {number}" for number in range(40)))


@pytest.fixture(scope="session")
def workplace(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        stack.wait_until_ready()
        yield Workplace(folder, stack)
