"""A recipe → a model package: exports for both runtimes, compares the artifacts, puts them into the store."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.images.preprocess import preprocess
from modelkit import parity, spec
from modelkit.children import ROOT
from modelkit.exported import Say, export
from modelkit.files import digest, replaced, tree
from modelkit.network import Network
from modelkit.parity import ParityFailure
from modelkit.recipe import Recipe
from modelkit.spec import InputSpec, ModelSpec


def source_digest(recipe: Recipe) -> str:
    """Digest of everything that a package of `recipe` is made of: the model's files and the code of this folder."""
    return digest((*recipe.sources(), *(ROOT / "modelkit").glob("*.py")), ROOT)


def is_current(recipe: Recipe, package: Path) -> bool:
    """Whether `package` was made of the recipe as it is now, and its artifacts are still as they were made."""
    try:
        made = spec.read(package)
    except spec.InvalidPackage:
        return False
    return made.source_sha256 == source_digest(recipe) and all(
        digest(tree(package / runtime), package / runtime) == record.sha256
        for runtime, record in made.artifacts.items()
    )


def build(recipe: Recipe, package: Path, say: Say) -> ModelSpec:
    """Make the package of `recipe` in the folder `package`, which appears whole or not at all.

    Raises StepFailed when an export fails and ParityFailure when the artifacts are not the same model.
    """
    source_sha256 = source_digest(recipe)
    with np.load(recipe.held_out) as held_out:
        pictures, labels = tensors(held_out["pictures"], recipe.input), held_out["labels"]
    with tempfile.TemporaryDirectory(prefix="tandem-modelkit-") as temporary:
        np.save(Path(temporary) / "pictures.npy", pictures)
        where = {"architecture": recipe.architecture, "weights": str(recipe.weights)}
        Network(torch=where, tf=where, height=recipe.input.height, width=recipe.input.width).write(Path(temporary))
        exported = {runtime: export(recipe.name, runtime, Path(temporary), say) for runtime in spec.RUNTIME_NAMES}
        made = ModelSpec(
            name=recipe.name,
            version=recipe.version,
            task=recipe.task,
            labels=recipe.labels,
            input=recipe.input,
            outputs=recipe.outputs,
            normalisation=recipe.normalisation,
            licence=recipe.licence,
            source=recipe.source,
            source_sha256=source_sha256,
            artifacts={runtime: each.record for runtime, each in exported.items()},
            parity={},
        )
        record = parity.compare(
            made,
            {runtime: each.outputs for runtime, each in exported.items()},
            [f"held-out picture {number}" for number in range(len(pictures))],
            labels=labels,
        )
        if not record.passed:
            raise ParityFailure(f"the two artifacts of {recipe.name} are not the same model: {parity.report(record)}")
        for runtime, right in record.correct.items():
            if right < recipe.minimum_accuracy * len(labels):
                raise ParityFailure(
                    f"the {runtime} artifact answers {right} of {len(labels)} held-out pictures right "
                    f"({right / len(labels):.2%}); at least {recipe.minimum_accuracy:.2%} is asked for"
                )
        say(
            f"{recipe.name}: {record.agreeing} of {record.pictures} held-out pictures with the same answer, scores "
            f"within {record.max_score_difference:.1g}; right: "
            + ", ".join(f"{runtime} {right / record.pictures:.2%}" for runtime, right in record.correct.items())
        )
        made = made.model_copy(update={"parity": {"fp32": record}})
        with replaced(package) as new:
            for runtime, each in exported.items():
                shutil.copytree(each.artifact, new / runtime)
            spec.write(made, new)
    return made


def tensors(pictures: npt.NDArray[np.uint8], input_spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Grey pictures `[n, h, w]` → input tensors `[n, height, width, 3]`, by the gateway's own preprocessing."""
    images = (Image.fromarray(picture).convert("RGB") for picture in pictures)
    return np.concatenate([preprocess(image, input_spec) for image in images])
