"""A recipe → a model package: exports for both runtimes, compares the artifacts, puts them into the store."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from modelkit import held_out, parity, spec
from modelkit.children import ROOT
from modelkit.exported import Say, export
from modelkit.files import digest, replaced, tree
from modelkit.network import Head, Network
from modelkit.parity import ParityFailure
from modelkit.recipe import DetectorRecipe, Recipe
from modelkit.spec import ModelSpec, Precision


def source_digest(recipe: Recipe | DetectorRecipe) -> str:
    """Digest of everything that a package of `recipe` is made of: the model's files and the code of this folder."""
    return digest((*recipe.sources(), *(ROOT / "modelkit").glob("*.py")), ROOT)


def is_current(recipe: Recipe | DetectorRecipe, package: Path, precision: Precision) -> bool:
    """Whether `package` was made of the recipe as it is now, in `precision`, and its artifacts are still as they were
    made."""
    try:
        made = spec.read(package)
    except spec.InvalidPackage:
        return False
    return (made.precision, made.source_sha256) == (precision, source_digest(recipe)) and all(
        digest(tree(package / runtime), package / runtime) == record.sha256
        for runtime, record in made.artifacts.items()
    )


def build(recipe: Recipe | DetectorRecipe, package: Path, say: Say, precision: Precision = "fp32") -> ModelSpec:
    """Make the package of `recipe` in the folder `package`, which appears whole or not at all.

    Raises StepFailed when an export fails and ParityFailure when the artifacts are not the same model.
    """
    source_sha256 = source_digest(recipe)
    known = held_out.of(recipe)
    head = detection = None
    if isinstance(recipe, DetectorRecipe):
        head = Head(kind="dense", classes=len(recipe.labels), top_k=recipe.candidates)
        detection = recipe.detection
    with tempfile.TemporaryDirectory(prefix="tandem-modelkit-") as temporary:
        np.save(Path(temporary) / "pictures.npy", known.tensors)
        where = {"architecture": recipe.architecture, "weights": str(recipe.weights)}
        Network(
            torch=where,
            tf=where,
            height=recipe.input.height,
            width=recipe.input.width,
            head=head,
        ).write(Path(temporary))
        exported = {
            runtime: export(recipe.name, runtime, Path(temporary), say, precision) for runtime in spec.RUNTIME_NAMES
        }
        made = ModelSpec(
            name=recipe.name,
            version=recipe.version,
            task=recipe.task,
            labels=recipe.labels,
            input=recipe.input,
            outputs=recipe.outputs,
            detection=detection,
            normalisation=recipe.normalisation,
            licence=recipe.licence,
            source=recipe.source,
            source_sha256=source_sha256,
            artifacts={runtime: each.record for runtime, each in exported.items()},
            precision=precision,
            parity={},
        )
        record = parity.compare(
            made,
            {runtime: each.outputs for runtime, each in exported.items()},
            [f"held-out picture {number}" for number in range(len(known.tensors))],
            right=known.right,
            in_fp32={name: each.in_fp32 for name, each in exported.items() if each.in_fp32 is not None},
        )
        if not record.passed:
            raise ParityFailure(f"the two artifacts of {recipe.name} are not the same model: {parity.report(record)}")
        for runtime, right in record.correct.items():
            if right < recipe.minimum_accuracy * record.pictures:
                raise ParityFailure(
                    f"the {runtime} artifact answers {right} of {record.pictures} held-out pictures right "
                    f"({right / record.pictures:.2%}); at least {recipe.minimum_accuracy:.2%} is asked for"
                )
        say(
            f"{recipe.name}: {record.agreeing} of {record.pictures} held-out pictures with the same answer, scores "
            f"within {record.max_score_difference:.1g}; right: "
            + ", ".join(f"{runtime} {right / record.pictures:.2%}" for runtime, right in record.correct.items())
        )
        made = made.model_copy(update={"parity": {precision: record}})
        with replaced(package) as new:
            for runtime, each in exported.items():
                shutil.copytree(each.artifact, new / runtime)
            spec.write(made, new)
    return made
