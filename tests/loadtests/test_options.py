"""The page names exactly the options that there are."""

from __future__ import annotations

import re

from tests.support.locust import ROOT, options

PAGE = (ROOT / "docs" / "load-tests.md").read_text()


def test_the_page_has_every_option_with_its_variable_and_default() -> None:
    described = re.findall(r"^\| `(--[\w-]+)` \| `(TANDEM_\w+)` \| `?([\w/]+)`? \|", PAGE, re.MULTILINE)
    there = [
        (each.name, each.variable, {str(ROOT / "models"): "models", "None": "none"}.get(each.default, each.default))
        for each in options()
        if each.variable.startswith("TANDEM_")
    ]
    assert sorted(described) == sorted(there)
