"""Whether the two artifacts of a model say the same about the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelkit.spec import RUNTIME_NAMES, OutputSpec, ParityRecord, RuntimeName

TOLERANCE = 1e-4
"""Greatest difference of a score that is rounding, and not another model."""
REPORTED = 5
"""Pictures that a report names."""

Outputs = Mapping[str, npt.NDArray[Any]]
"""By name, each `[pictures, …]`."""


class ParityFailure(Exception):
    """The artifacts are not the same model, or not the model that was meant. The message is the report."""


def compare(
    answers: Mapping[RuntimeName, Outputs],
    labels: npt.NDArray[np.uint8],
    *,
    promised: Mapping[str, OutputSpec],
    minimum_accuracy: float,
    tolerance: float = TOLERANCE,
) -> ParityRecord:
    """The parity record of both runtimes' answers about the same pictures, whose right classes are `labels`.

    Raises ParityFailure for outputs other than promised, for a picture with another best class or a score that differs
    by more than `tolerance`, and for an artifact that answers fewer than `minimum_accuracy` of the pictures right.
    """
    for runtime in RUNTIME_NAMES:
        _check_shapes(runtime, answers[runtime], promised, len(labels))
    torch, tf = answers["torch"]["scores"], answers["tf"]["scores"]
    differences = np.abs(torch - tf).max(axis=1)
    best = {"torch": torch.argmax(axis=1), "tf": tf.argmax(axis=1)}
    same = best["torch"] == best["tf"]
    bad = np.flatnonzero(~same | ~(differences <= tolerance))  # NaN is not within any tolerance
    if len(bad):
        worst = bad[np.argsort(-np.nan_to_num(differences[bad], nan=np.inf), kind="stable")]
        lines = [
            f"  picture {n} (labelled {labels[n]}): torch says {best['torch'][n]} ({torch[n].max():.4f}), "
            f"tf says {best['tf'][n]} ({tf[n].max():.4f}), scores differ by {differences[n]:.3g}"
            for n in worst[:REPORTED]
        ]
        if len(worst) > REPORTED:
            lines.append(f"  … and {len(worst) - REPORTED} more")
        raise ParityFailure(
            f"the two artifacts disagree about {len(bad)} of {len(labels)} pictures: {(~same).sum()} have another best "
            f"class, the greatest difference of a score is {np.max(differences):.3g} (allowed: {tolerance:g})\n"
            + "\n".join(lines)
        )
    correct: dict[RuntimeName, int] = {name: int((best[name] == labels).sum()) for name in RUNTIME_NAMES}
    for runtime, right in correct.items():
        if right < minimum_accuracy * len(labels):
            raise ParityFailure(
                f"the {runtime} artifact answers {right} of {len(labels)} held-out pictures right "
                f"({right / len(labels):.2%}); at least {minimum_accuracy:.2%} is asked for"
            )
    return ParityRecord(
        pictures=len(labels),
        same_top1=int(same.sum()),
        max_score_difference=float(differences.max()),
        distinct_top1=len(np.unique(best["torch"])),
        tolerance=tolerance,
        correct=correct,
    )


def _check_shapes(runtime: RuntimeName, outputs: Outputs, promised: Mapping[str, OutputSpec], pictures: int) -> None:
    found = {name: (array.dtype.name, array.shape) for name, array in outputs.items()}
    expected = {name: (spec.dtype, (pictures, *spec.shape)) for name, spec in promised.items()}
    if found != expected:
        raise ParityFailure(f"the {runtime} artifact returns {found}; {expected} was promised")
