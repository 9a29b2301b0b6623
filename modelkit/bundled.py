"""The models that come with Tandem."""

from __future__ import annotations

from models.digits.recipe import RECIPE as DIGITS

BUNDLED = (DIGITS,)
