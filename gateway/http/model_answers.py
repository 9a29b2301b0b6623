"""The JSON about models and their versions. The command line makes the same of a store without a gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gateway.runtimes.base import ModelStatus
from modelkit.spec import (
    ArtifactRecord,
    DetectionSpec,
    InputSpec,
    ModelSpec,
    ParityRecord,
    Precision,
    RuntimeName,
    Tolerances,
)

States = Mapping[RuntimeName, ModelStatus]
"""What is known of one version on each runtime."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class VersionState(_Answer):
    state: Literal["ready", "loading", "failed", "unavailable"]
    reason: str | None
    version: str


class ProofAnswer(_Answer):
    """How the two artifacts compared, in short."""

    pictures: int
    agreeing: int
    """Pictures about which both make the same predictions."""
    precision: Precision
    passed: bool
    proves: bool
    """Whether the pictures led to enough different answers for agreement to mean something."""
    mismatch_allowed: bool
    """The artifacts do not agree, and whoever added the version took it nevertheless."""


class VersionAnswer(_Answer):
    """All that its package says of one version."""

    version: str
    source: str
    licence: str
    normalisation: str
    """What the graphs do to the uint8 tensor first."""
    input: InputSpec
    detection: DetectionSpec | None
    agreement: Tolerances
    """When two answers agree."""
    artifacts: dict[RuntimeName, ArtifactRecord]
    """By runtime: the form that was exported, its digest, and what each form that was tried took."""
    precision: Precision
    """Arithmetic of both artifacts."""
    parity: dict[Precision, ParityRecord]
    """By precision, how the two artifacts compared."""
    proves: bool
    mismatch_allowed: bool


class ModelSummary(_Answer):
    name: str
    task: str
    labels: list[str]
    input: dict[str, int]
    """Height and width of the default version's input, in pixels."""
    default_version: str
    """The version that answers requests which name none."""
    wanted_version: str | None
    """The version that the default will move to once both runtimes are ready; None where it need not move."""
    runtimes: dict[RuntimeName, list[VersionState]]
    """Every version, oldest first."""
    proofs: dict[str, ProofAnswer]
    """By version."""


class ModelAnswer(ModelSummary):
    versions: list[VersionAnswer]
    """Every version, oldest first."""


class ModelsAnswer(_Answer):
    models: list[ModelSummary]


class RemovedAnswer(_Answer):
    model: str
    removed: list[str]
    """The versions that are not served any more. The workers unload them once their last requests are answered."""


def version_state(version: int, status: ModelStatus) -> VersionState:
    # That a worker does not have it yet is no end: it is about to be told.
    state = "loading" if status.state == "absent" else status.state
    return VersionState(state=state, reason=status.reason, version=str(version))


def model_answer(specs: Sequence[ModelSpec], *, default: int, wanted: int, states: Mapping[int, States]) -> ModelAnswer:
    """About the versions `specs` of one model, oldest first; `states` by version, with the same runtimes for each."""
    shown = next(spec for spec in specs if spec.version == default)
    runtimes = next(iter(states.values()), {})
    return ModelAnswer(
        name=shown.name,
        task=shown.task,
        labels=list(shown.labels),
        input={"height": shown.input.height, "width": shown.input.width},
        default_version=str(default),
        wanted_version=None if wanted == default else str(wanted),
        runtimes={
            runtime: [version_state(spec.version, states[spec.version][runtime]) for spec in specs]
            for runtime in runtimes
        },
        proofs={str(spec.version): _proof(spec) for spec in specs},
        versions=[_version(spec) for spec in specs],
    )


def summary_of(answer: ModelAnswer) -> ModelSummary:
    """The part of it that stands in a list."""
    return ModelSummary(**{name: getattr(answer, name) for name in ModelSummary.model_fields})


def _proof(spec: ModelSpec) -> ProofAnswer:
    return ProofAnswer(
        pictures=spec.proof.pictures,
        agreeing=spec.proof.agreeing,
        precision=spec.precision,
        passed=spec.proof.passed,
        proves=spec.proof.proves,
        mismatch_allowed=spec.mismatch_allowed,
    )


def _version(spec: ModelSpec) -> VersionAnswer:
    return VersionAnswer(
        version=str(spec.version),
        source=spec.source,
        licence=spec.licence,
        normalisation=spec.normalisation,
        input=spec.input,
        detection=spec.detection,
        agreement=spec.agreement,
        artifacts=spec.artifacts,
        precision=spec.precision,
        parity=spec.parity,
        proves=spec.proof.proves,
        mismatch_allowed=spec.mismatch_allowed,
    )
