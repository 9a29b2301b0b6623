"""Model archives (`.mar`): how a package becomes what TorchServe reads, and whether an archive is one.

An archive is a zip file: `MAR-INF/MANIFEST.json`, the handler, the package's `model.yaml` and its module (`model.pt`
or, compiled, `model.pt2`), and `model-config.yaml` with TorchServe's settings for this model. TorchServe's own archiver
writes the same, but by way of a folder in the system's temporary folder that is named after the model and removed
first: two builds at once would mix, and dates make each result another one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import yaml

MANIFEST = "MAR-INF/MANIFEST.json"
BATCH_SIZE = 8
"""Most requests in one batch."""
MAX_BATCH_DELAY_MS = 1
"""How long the first request of a batch waits for others, in milliseconds; 1 is TorchServe's least."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


class InvalidArchive(Exception):
    """A file that TorchServe could not load. The message says why."""


class Archive(NamedTuple):
    """What an archive says it is."""

    file: str
    model: str
    version: str
    picture_bytes: int
    """Of the tensor of one picture."""
    answer_bytes: int
    """Of the tensors that it is answered with."""


def build_archive(
    package: Path,
    serving: Path,
    *,
    batch_size: int = BATCH_SIZE,
    max_batch_delay_ms: int = MAX_BATCH_DELAY_MS,
) -> Path:
    """Write `<serving>/<name>-<version>.mar` from the package folder and return its path.

    The file appears whole or not at all, and the same package gives the same bytes. Raises OSError or KeyError for a
    package without its `model.yaml` (name, version, input, outputs) or its module, `torch/model.pt2` or else
    `torch/model.pt`.
    """
    text = (package / "model.yaml").read_text()
    spec = yaml.safe_load(text)
    name, version = str(spec["name"]), str(spec["version"])
    compiled = package / "torch" / "model.pt2"
    module = compiled if compiled.exists() else package / "torch" / "model.pt"
    config = {
        "batchSize": batch_size,
        "maxBatchDelay": max_batch_delay_ms,
        "responseTimeout": 60,  # a worker that has not answered by then is replaced
        "startupTimeout": 120,
        # By default a worker that dies again and again for five minutes is given up for good. The unit inside is an
        # int of milliseconds, so that this (23 days) is about as long as can be.
        "maxRetryTimeoutInSec": 2_000_000,
    }
    manifest = {
        "createdOn": "-",
        "archiverVersion": "tandem",
        "runtime": "python",
        "model": {
            "modelName": name,
            "modelVersion": version,
            "serializedFile": module.name,
            "handler": "handler.py",
            "configFile": "model-config.yaml",
        },
    }
    files: dict[str, bytes] = {
        MANIFEST: json.dumps(manifest, indent=2).encode(),
        "handler.py": Path(__file__).with_name("handler.py").read_bytes(),
        "model-config.yaml": yaml.safe_dump(config, sort_keys=False).encode(),
        module.name: module.read_bytes(),
        "model.yaml": text.encode(),
    }
    serving.mkdir(parents=True, exist_ok=True)
    target = serving / f"{name}-{version}.mar"
    with tempfile.NamedTemporaryFile(dir=serving, prefix=f".{target.name}.", delete=False) as aside:
        try:
            # Stored, not compressed: weights hardly shrink, and TorchServe unpacks at every start.
            with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
                for path, content in files.items():
                    archive.writestr(zipfile.ZipInfo(path, _EPOCH), content)
            aside.flush()
            os.fchmod(aside.fileno(), 0o644)
            Path(aside.name).replace(target)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise
    return target


def read_archive(path: Path) -> Archive:
    """What the archive says it is, after reading all of it. Raises InvalidArchive.

    Stricter than TorchServe, which registers any zip file and then starts a worker again and again that can't load it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise InvalidArchive(f"{damaged} in it is damaged")
            model = json.loads(archive.read(MANIFEST))["model"]
            spec = yaml.safe_load(archive.read("model.yaml"))
            found = Archive(
                path.name,
                str(model["modelName"]),
                str(model["modelVersion"]),
                picture_bytes=int(spec["input"]["height"]) * int(spec["input"]["width"]) * 3,
                answer_bytes=sum(math.prod(output["shape"]) * 4 for output in spec["outputs"].values()),
            )
            for role in ("handler", "serializedFile", "configFile"):
                archive.getinfo(model[role])
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidArchive(f"it is not a readable zip file ({error})") from error
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InvalidArchive(f"its manifest or its model.yaml is missing or incomplete ({error})") from error
    if path.name != f"{found.model}-{found.version}.mar":
        raise InvalidArchive(f"it holds {found.model} version {found.version}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m torch_worker.archive", description="Build a model archive.")
    parser.add_argument("--package", type=Path, required=True, help="the package folder, <store>/<name>/<version>")
    parser.add_argument("--serving", type=Path, required=True, help="the folder TorchServe reads archives from")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--max-batch-delay-ms", type=int, default=MAX_BATCH_DELAY_MS)
    arguments = parser.parse_args()
    try:
        target = build_archive(
            arguments.package,
            arguments.serving,
            batch_size=arguments.batch_size,
            max_batch_delay_ms=arguments.max_batch_delay_ms,
        )
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        sys.exit(f"torch_worker.archive: {arguments.package} is not a model package: {error!r}")
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
