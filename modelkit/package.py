"""A recipe → a model package: exports for both runtimes, compares the artifacts, puts them into the store."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.images.preprocess import preprocess
from modelkit import children, parity, spec
from modelkit.children import ROOT
from modelkit.files import digest, replaced, tree
from modelkit.parity import ParityFailure
from modelkit.recipe import Recipe
from modelkit.spec import ArtifactRecord, InputSpec, ModelSpec, RuntimeName

Say = Callable[[str], None]
"""Where lines about progress go."""
SLOWER_THAN_BEST = 1.15
"""How much slower than the fastest export form the packaged one may measure before the build says so."""


class Exported(NamedTuple):
    """What exporting for one runtime left."""

    artifact: Path
    record: ArtifactRecord
    outputs: parity.Outputs


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
        exported = {runtime: _export(recipe, runtime, Path(temporary), say) for runtime in spec.RUNTIME_NAMES}
        record = parity.compare(
            {runtime: each.outputs for runtime, each in exported.items()},
            [f"held-out picture {number}" for number in range(len(pictures))],
            promised=recipe.outputs,
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
            parity={"fp32": record},
        )
        with replaced(package) as new:
            for runtime, each in exported.items():
                shutil.copytree(each.artifact, new / runtime)
            spec.write(made, new)
    return made


def tensors(pictures: npt.NDArray[np.uint8], input_spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Grey pictures `[n, h, w]` → input tensors `[n, height, width, 3]`, by the gateway's own preprocessing."""
    images = (Image.fromarray(picture).convert("RGB") for picture in pictures)
    return np.concatenate([preprocess(image, input_spec) for image in images])


def _export(recipe: Recipe, runtime: RuntimeName, folder: Path, say: Say) -> Exported:
    work = folder / runtime
    work.mkdir()
    with _timed(f"{recipe.name}: exporting for {runtime}", say):
        children.run(
            runtime,
            f"modelkit.export_{runtime}",
            f"--architecture={recipe.architecture}",
            f"--weights={recipe.weights}",
            f"--pictures={folder / 'pictures.npy'}",
            f"--work={work}",
        )
    result = json.loads((work / "result.json").read_text())
    form, candidates_ms = str(result["form"]), dict(result["candidates_ms"])
    best = min(candidates_ms, key=candidates_ms.__getitem__)
    if candidates_ms[form] > SLOWER_THAN_BEST * candidates_ms[best]:
        say(
            f"{recipe.name}: warning: for {runtime}, {form} is packaged, which took "
            f"{candidates_ms[form]} ms a picture; {best} took {candidates_ms[best]}"
        )
    artifact = work / form
    with np.load(work / "outputs.npz") as outputs:
        return Exported(
            artifact,
            ArtifactRecord(form=form, sha256=digest(tree(artifact), artifact), candidates_ms=candidates_ms),
            dict(outputs),
        )


@contextmanager
def _timed(step: str, say: Say) -> Iterator[None]:
    say(f"{step} …")
    start = time.monotonic()
    yield
    say(f"{step}: {time.monotonic() - start:.1f} s")
