"""The query parameters of inference. Any other parameter is refused: a typing error must not pass unseen."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class InferenceParameters(BaseModel):
    """Of `predict` and `compare`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int | None = Field(None, ge=1, description="The model's version; by default its default version.")
    top_k: int = Field(5, ge=1, le=1000, description="Most classes for each picture.")
    min_score: float = Field(0.0, ge=0, le=1, description="Least score of a prediction.")
    timeout_ms: int | None = Field(
        None, ge=1, description="Deadline in milliseconds, from the start of the request; capped."
    )


class PredictParameters(InferenceParameters):
    runtime: Literal["auto", "torch", "tf"] = Field(
        "auto", description="The runtime that answers; `auto`: as the model's policy says."
    )
