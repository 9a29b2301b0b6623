"""The models that come with Tandem."""

from __future__ import annotations

from models.digits.recipe import RECIPE as DIGITS
from models.shapes.recipe import RECIPE as SHAPES

BUNDLED = (DIGITS, SHAPES)
