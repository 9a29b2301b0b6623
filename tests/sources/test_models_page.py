"""docs/models.md: every command in it works, or says that there is no network and which option to give."""

from __future__ import annotations

import json
import re

import pytest

from tests.sources.conftest import Workplace, commands

DOWNLOADS = {"mobilenet": "--weights FILE", "resnet18": "--weights FILE", "yolo11": "its path instead of"}
"""Models whose weights the libraries download, and the option that the refusal names without a network."""


@pytest.mark.parametrize("command", commands())
def test_the_command_does_what_the_page_says(workplace: Workplace, command: str) -> None:
    done = workplace.run(command)
    name = next(iter(re.findall(r"--name (\S+)", command)), "")
    if name in DOWNLOADS and done.returncode:
        assert "could not be downloaded" in done.stderr
        assert DOWNLOADS[name] in done.stderr
        return
    assert done.returncode == 0, done.stderr
    if name:
        assert f"{name} version 1 is added." in done.stdout
        record = json.loads(workplace.run(f"tandem models show {name} --json").stdout)
        version = record["versions"][0]
        assert version["parity"][version["precision"]]["passed"], record
