"""Whether the two artifacts of a model say the same about the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelkit import predictions
from modelkit.spec import (
    HANDFUL,
    RUNTIME_NAMES,
    Agreement,
    ModelSpec,
    OutputDifference,
    OutputSpec,
    ParityRecord,
    Precision,
    RuntimeName,
)


class Bounds(NamedTuple):
    """What is rounding and not another model."""

    tolerance: float
    """Greatest difference of a value, as a fraction of how much that value differs from picture to picture."""
    least_agreeing: float
    """Least share of the pictures with the same predictions: of two nearly equal scores, either may be the best."""
    least_iou: float
    """Least overlap of two boxes or masks that are the same."""


BOUNDS: dict[Precision, Bounds] = {
    "fp32": Bounds(tolerance=1e-3, least_agreeing=1.0, least_iou=0.99),
    "bf16": Bounds(tolerance=0.05, least_agreeing=0.97, least_iou=0.9),
    "fp16": Bounds(tolerance=0.01, least_agreeing=0.97, least_iou=0.95),
}
"""Measured: docs/adr/0030-sixteen-bits-by-one-rule.md."""
LEAST_SPREAD = 2.5e-3
"""As a fraction of the greatest value: an output that pictures change by less is held against this. Times the
tolerance, it is what the rounding of 32-bit arithmetic comes to."""

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
"""By name, each `[pictures, …]`."""


class ParityFailure(Exception):
    """The artifacts are not the same model, or not the model that was meant. The message is the report."""


def compare(
    made: ModelSpec,
    answers: Mapping[RuntimeName, Outputs],
    pictures: Sequence[str],
    *,
    right: Callable[[ModelSpec, Outputs], int] | None = None,
    in_fp32: Mapping[RuntimeName, Outputs] | None = None,
) -> ParityRecord:
    """The parity record of both runtimes' answers about the same pictures, named `pictures`, in that order.

    `right` counts the pictures that outputs answer right, where that is known; `in_fp32` is what the same network
    answers in 32 bits, where the artifacts are in 16. Raises ParityFailure for outputs other than `made` promises; what
    else is wrong is in the record, and `report` puts it into words.
    """
    for runtime in RUNTIME_NAMES:
        _check_shapes(runtime, answers[runtime], made.outputs, len(pictures))
    bounds = BOUNDS[made.precision]
    torch, tf = answers["torch"], _in_the_order_of(answers["torch"], answers["tf"])
    outputs = {name: _difference(torch[name], tf[name], pictures) for name in made.outputs if name not in _DISCRETE}
    said = predictions.of_both(made, answers["torch"], answers["tf"], bounds.least_iou)
    return ParityRecord(
        pictures=len(pictures),
        agreeing=sum(said.same),
        max_score_difference=outputs["scores"].max_difference,
        distinct=said.distinct,
        outputs=outputs,
        tolerance=bounds.tolerance,
        least_agreeing=bounds.least_agreeing,
        against_fp32={
            runtime: _agreement(made, whole, answers[runtime], bounds) for runtime, whole in (in_fp32 or {}).items()
        },
        correct={} if right is None else {name: right(made, answers[name]) for name in RUNTIME_NAMES},
        passed=sum(said.same) >= bounds.least_agreeing * len(pictures)
        and all(each.fraction <= bounds.tolerance for each in outputs.values()),
    )


def _agreement(made: ModelSpec, whole: Outputs, reduced: Outputs, bounds: Bounds) -> Agreement:
    scores = _in_the_order_of(whole, reduced)["scores"]
    with np.errstate(invalid="ignore"):
        difference = np.abs(whole["scores"].astype(np.float64) - scores)
    return Agreement(
        agreeing=sum(predictions.of_both(made, whole, reduced, bounds.least_iou).same),
        max_score_difference=float(np.nan_to_num(difference, nan=1.0, posinf=1.0).max()),
    )


def report(record: ParityRecord) -> str:
    """What was found, a line each: which output, on which picture, how far."""
    lines = [
        f"{record.agreeing} of {record.pictures} pictures with the same predictions, scores within "
        f"{record.max_score_difference:.3g}"
    ]
    for name, each in record.outputs.items():
        verdict = "" if each.fraction <= record.tolerance else f", over the tolerance of {record.tolerance:g}"
        lines.append(
            f"  output {name}: greatest difference {each.max_difference:.3g} (on {each.picture}), which is "
            f"{each.fraction:.3g} of its spread of {each.spread:.3g} over the pictures{verdict}"
        )
    if record.agreeing < record.least_agreeing * record.pictures:
        lines.append(f"  at least {record.least_agreeing:.0%} of the pictures must have the same predictions")
    for runtime, agreement in record.against_fp32.items():
        lines.append(
            f"  {runtime}, against itself in fp32: {agreement.agreeing} of {record.pictures} pictures with the same"
            f" predictions, scores within {agreement.max_score_difference:.3g}"
        )
    if record.passed and not record.proves:
        lines.append(
            f"  This proves little: the pictures led to {record.distinct} different answers; {HANDFUL} are needed. "
            "Give pictures of the model's own kind with --samples, or trained weights."
        )
    return "\n".join(lines)


_DISCRETE = ("classes", "candidates")
"""Outputs that are no measure: they are compared as predictions."""


def _in_the_order_of(first: Outputs, second: Outputs) -> Outputs:
    """The second artifact's candidates in the order of the first's: nearly equal scores change places.

    A candidate that the second does not have stands for itself, but for its score, which is the least of those it has:
    it came just too late to be among them.
    """
    if "candidates" not in first:
        return second
    count = first["candidates"].shape[1]
    aligned = {
        name: first[name].copy() if array.ndim >= 2 and array.shape[1] == count else array
        for name, array in second.items()
    }
    for picture, wanted in enumerate(first["candidates"]):
        order = np.argsort(second["candidates"][picture])
        place = np.searchsorted(second["candidates"][picture], wanted, sorter=order).clip(max=count - 1)
        there = second["candidates"][picture][order[place]] == wanted
        for name, array in aligned.items():
            if array is not second[name]:
                array[picture][there] = second[name][picture][order[place[there]]]
        aligned["scores"][picture][~there] = second["scores"][picture].min()
    return aligned


def _difference(first: Array, second: Array, pictures: Sequence[str]) -> OutputDifference:
    """NaN and infinity count as infinitely far apart, also from each other."""
    axes = tuple(range(1, first.ndim))
    with np.errstate(invalid="ignore"):
        differences = np.abs(first.astype(np.float64) - second)
    each = np.where(np.isfinite(differences), differences, np.finfo(np.float32).max).max(axis=axes)
    worst = int(each.argmax())
    finite = np.nan_to_num(first.astype(np.float64), posinf=0, neginf=0)
    spread = float(np.ptp(finite, axis=0).max()) if first.size else 0.0
    difference = float(each[worst])
    least = max(spread, LEAST_SPREAD * float(np.abs(finite).max(initial=0)), float(np.finfo(np.float32).tiny))
    fraction = (
        min(difference, float(np.finfo(np.float32).max)) / least
    )  # a number that YAML and JSON can hold: no infinity
    return OutputDifference(max_difference=difference, spread=spread, fraction=float(fraction), picture=pictures[worst])


def _check_shapes(runtime: RuntimeName, outputs: Outputs, promised: Mapping[str, OutputSpec], pictures: int) -> None:
    found = {name: (array.dtype.name, array.shape) for name, array in outputs.items()}
    expected = {name: (spec.dtype, (pictures, *spec.shape)) for name, spec in promised.items()}
    if found != expected:
        raise ParityFailure(f"the {runtime} artifact returns {found}; {expected} was promised")
