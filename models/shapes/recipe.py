"""What `modelkit` needs to know to make the model package of the shapes model."""

from __future__ import annotations

from modelkit.spec import InputSpec

LABELS = ("circle", "square", "triangle", "star", "cross", "ring")
INPUT = InputSpec(height=160, width=160, fit="letterbox", interpolation="bilinear", antialias=True, pad=114)
