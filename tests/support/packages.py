"""Packages made for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelkit.files import digest, tree
from modelkit.spec import RUNTIME_NAMES, ArtifactRecord, InputSpec, ModelSpec, OutputSpec, ParityRecord, read, write


def digits_spec(version: int = 1) -> ModelSpec:
    artifact = ArtifactRecord(form="none", sha256="0" * 64)
    return ModelSpec(
        name="digits",
        version=version,
        task="classify",
        labels=tuple("0123456789"),
        input=InputSpec(height=32, width=32),
        outputs={"scores": OutputSpec(shape=(10,), meaning="softmax")},
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
    for version in versions:
        package = store / "digits" / str(version)
        package.mkdir(parents=True)
        write(digits_spec(version), package)


def add_broken_model(store: Path) -> None:
    """A copy of `digits` whose artifacts are not what their names say."""
    package = store / "broken" / "1"
    shutil.copytree(store / "digits" / "1", package)
    write(read(package).model_copy(update={"name": "broken"}), package)
    for artifact in (package / "torch" / "model.pt", package / "tf" / "saved_model.pb"):
        artifact.unlink()  # the serving view holds hard links
        artifact.write_bytes(b"not a model")
