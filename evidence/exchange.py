"""What a gateway and the statistics' process say to each other: a line of JSON each way."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from evidence.document import Comparison, Target


class Question(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: str
    a: Target
    b: Target
    since: float
    environment: dict[str, Any]


class Answer(BaseModel):
    """One of these."""

    comparison: Comparison | None = None
    database_error: str | None = None
    """Why the database could not be read."""
    error: str | None = None
    """A fault of ours."""
