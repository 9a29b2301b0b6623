"""Packages made for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelkit import children
from modelkit.files import digest, tree
from modelkit.spec import (
    RUNTIME_NAMES,
    ArtifactRecord,
    DetectionSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    ParityRecord,
    Task,
    read,
    write,
)

CANDIDATES = 4
"""Of the detectors made here."""
PROTOTYPES = 4
"""Each the size of a quarter of the input."""


def digits_spec(version: int = 1) -> ModelSpec:
    return _spec(
        "digits",
        "classify",
        version=version,
        labels=tuple("0123456789"),
        input=InputSpec(height=32, width=32),
        outputs={"scores": OutputSpec(shape=(10,), meaning="softmax")},
    )


def detector_spec(*, nms_iou: float | None = None, most: int = CANDIDATES) -> ModelSpec:
    """`shapes`: letterboxed into 64 × 64."""
    return _spec(
        "shapes",
        "detect",
        labels=("circle", "square"),
        input=InputSpec(height=64, width=64, fit="letterbox", antialias=False),
        outputs=_candidates(),
        detection=DetectionSpec(nms_iou=nms_iou, max_detections=most),
    )


def segmenter_spec() -> ModelSpec:
    """`outlines`: as `shapes`, with masks."""
    return _spec(
        "outlines",
        "segment",
        labels=("circle", "square"),
        input=InputSpec(height=64, width=64, fit="letterbox", antialias=False),
        outputs=_candidates()
        | {
            "coefficients": OutputSpec(shape=(CANDIDATES, PROTOTYPES), meaning="coefficients"),
            "prototypes": OutputSpec(shape=(PROTOTYPES, 16, 16), meaning="prototypes"),
        },
        detection=DetectionSpec(),
    )


def _candidates() -> dict[str, OutputSpec]:
    return {
        "boxes": OutputSpec(shape=(CANDIDATES, 4), meaning="boxes"),
        "scores": OutputSpec(shape=(CANDIDATES,), meaning="scores"),
        "classes": OutputSpec(shape=(CANDIDATES,), meaning="classes"),
    }


def _spec(
    name: str,
    task: Task,
    *,
    version: int = 1,
    labels: tuple[str, ...],
    input: InputSpec,  # noqa: A002  the field's name
    outputs: dict[str, OutputSpec],
    detection: DetectionSpec | None = None,
) -> ModelSpec:
    artifact = ArtifactRecord(form="none", sha256="0" * 64)
    return ModelSpec(
        name=name,
        version=version,
        task=task,
        labels=labels,
        input=input,
        outputs=outputs,
        detection=detection,
        normalisation="none",
        licence="Apache-2.0",
        source="tests",
        source_sha256="0" * 64,
        artifacts={"torch": artifact, "tf": artifact},
        parity={
            "fp32": ParityRecord(
                pictures=10, agreeing=10, max_score_difference=0, distinct=10, outputs={}, tolerance=1e-3, passed=True
            )
        },
    )


def add_artifacts(spec: ModelSpec, package: Path) -> None:
    """Make `package` one of `spec` with artifacts that no worker can load."""
    for name in ("torch/model.pt", "tf/saved_model.pb", "tf/variables/variables.index"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(f"{spec.name} {spec.version} {name}".encode() * 1000)
    artifacts = {
        runtime: ArtifactRecord(form="none", sha256=digest(tree(package / runtime), package / runtime))
        for runtime in RUNTIME_NAMES
    }
    write(spec.model_copy(update={"artifacts": artifacts}), package)


def write_store(store: Path, *versions: int) -> None:
    """Packages `digits/<version>` under `store` that only a gateway over fakes can use: they have no artifacts."""
    write_packages(store, *map(digits_spec, versions))


def write_packages(store: Path, *specs: ModelSpec) -> None:
    """As `write_store`, of any models."""
    for spec in specs:
        package = store / spec.name / str(spec.version)
        package.mkdir(parents=True)
        write(spec, package)


def add_broken_model(store: Path) -> None:
    """A copy of `digits` whose artifacts are not what their names say."""
    package = store / "broken" / "1"
    shutil.copytree(store / "digits" / "1", package)
    write(read(package).model_copy(update={"name": "broken"}), package)
    for artifact in (package / "torch" / "model.pt", package / "tf" / "saved_model.pb"):
        artifact.unlink()  # the serving view holds hard links
        artifact.write_bytes(b"not a model")


def make_rolled(first: Path, package: Path) -> None:
    """Make `package` version 2 of the `digits` at `first`: one more than the picture shows, and 0 for a nine."""
    shutil.copytree(first, package)
    shutil.rmtree(package / "tf")
    children.run("torch", "tests.support.rolled_torch", str(first / "torch/model.pt"), str(package / "torch/model.pt"))
    children.run("tf", "tests.support.rolled_tf", str(first / "tf"), str(package / "tf"))
    renumber(package, 2)


def renumber(package: Path, version: int) -> None:
    """Have `package` say that it is `version`, and what its artifacts are now."""
    made = read(package)
    artifacts = {
        runtime: record.model_copy(update={"sha256": digest(tree(package / runtime), package / runtime)})
        for runtime, record in made.artifacts.items()
    }
    write(made.model_copy(update={"version": version, "artifacts": artifacts}), package)
