"""The query parameters of inference. Any other parameter is refused: a typing error must not pass unseen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from gateway.routing import PAIR_PATTERN, Target, TargetPair

MAX_KEY = 256
"""Letters of what a request belongs to."""
MAX_VERSION = 2**63 - 1
"""What the runtimes' protocols have room for."""


class InferenceParameters(BaseModel):
    """Of `predict` and `compare`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int | None = Field(
        None, ge=1, le=MAX_VERSION, description="The model's version; by default its default version."
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Most predictions for each picture; by default 5 classes, or what a detector's package says.",
    )
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least score of a class, by default 0. A detection's score is above it, by default above what its "
        "package says.",
    )
    timeout_ms: int | None = Field(
        None, ge=1, description="Deadline in milliseconds, from the start of the request; capped."
    )


class CompareParameters(InferenceParameters):
    targets: Annotated[
        TargetPair,
        PlainValidator(TargetPair.parse),
        WithJsonSchema({"type": "string", "pattern": PAIR_PATTERN, "examples": ["torch,tf", "torch@1,torch@2"]}),
    ] = Field(
        TargetPair(Target("torch"), Target("tf")),
        description="The two targets to compare, by default both runtimes. One with a version keeps it, whatever "
        "`version` says. The same one twice: it with itself.",
    )
    mode: Literal["parallel", "sequential"] = Field(
        "parallel",
        description="Both at the same time, or one after the other: where they share cores, that is fairer. "
        "Which one is called first is random.",
    )


class PredictParameters(InferenceParameters):
    runtime: Literal["auto", "torch", "tf"] = Field(
        "auto", description="The runtime that answers; `auto`: as the model's policy says."
    )
