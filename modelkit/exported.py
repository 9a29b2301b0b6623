"""One runtime's artifact, made in its worker's environment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modelkit import children
from modelkit.files import digest, tree
from modelkit.predictions import Outputs
from modelkit.spec import ArtifactRecord, Precision, RuntimeName

Say = Callable[[str], None]
"""Where lines about progress go."""
SLOWER_THAN_BEST = 1.15
"""How much slower than the fastest export form the packaged one may measure before it is said."""


class Exported(NamedTuple):
    """What exporting for one runtime left."""

    artifact: Path
    record: ArtifactRecord
    outputs: Outputs
    in_fp32: Outputs | None
    """What the same network answers in 32 bits, where the artifact is in 16."""


def export(
    name: str, runtime: RuntimeName, work: Path, say: Say, precision: Precision, *, compiled: bool = False
) -> Exported:
    """Export the network in `work`, for the pictures there. `compiled`: try a compiled form besides (torch only).

    Raises StepRefused, for a network that has no such form, or StepFailed.
    """
    results = work / runtime
    results.mkdir()
    with timed(f"{name}: exporting for {runtime}{'' if precision == 'fp32' else f' in {precision}'}", say):
        children.run_refusable(
            runtime,
            f"modelkit.export_{runtime}",
            results,
            f"--network={work}",
            f"--pictures={work / 'pictures.npy'}",
            f"--work={results}",
            f"--precision={precision}",
            *(["--compile"] if compiled and runtime == "torch" else []),
        )
    result = json.loads((results / "result.json").read_text())
    form, candidates_ms = str(result["form"]), dict(result["candidates_ms"])
    best = min(candidates_ms, key=candidates_ms.__getitem__)
    if candidates_ms[form] > SLOWER_THAN_BEST * candidates_ms[best]:
        say(
            f"{name}: warning: for {runtime}, {form} is packaged, which took "
            f"{candidates_ms[form]} ms a picture; {best} took {candidates_ms[best]}"
        )
    artifact = results / form
    return Exported(
        artifact,
        ArtifactRecord(
            form=form,
            sha256=digest(tree(artifact), artifact),
            candidates_ms=candidates_ms,
            compiled_by=result["compiled_by"],
        ),
        _read(results / "outputs.npz"),
        None if precision == "fp32" else _read(results / "outputs-fp32.npz"),
    )


def _read(path: Path) -> Outputs:
    with np.load(path) as outputs:
        return dict(outputs)


@contextmanager
def timed(step: str, say: Say) -> Iterator[None]:
    say(f"{step} …")
    start = time.monotonic()
    yield
    say(f"{step}: {time.monotonic() - start:.1f} s")
